"""What may stand on the two sides of a transfer, over the loopback backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline import Agent, DescriptorList, MemoryKind
from trunkline.errors import (
    ConfigurationError,
    NoBackendError,
    ReadOnlyMemoryError,
    ShapeMismatchError,
    UnsupportedBufferError,
)
from trunkline.testing.stepped import SteppedBackend

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent("alone", backends=("loopback",)) as agent:
        yield agent


def layers(seed: int) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(seed)
    return {str(i): random.integers(0, 255, (16, 32), np.uint8) for i in range(3)}


def test_a_prepared_pair_of_groups_moves_the_rows_asked_for(agent: Agent) -> None:
    here, there = layers(1), layers(2)
    before = {name: array.copy() for name, array in here.items()}
    pair = agent.prepare(agent.register(here, name="here"), agent.register(there, name="there"))
    transfer = pair.read([5, 0, 9], [1, 2, 3], tag="x")
    assert (transfer.telemetry.blocks, transfer.tag) == (9, "x")
    pair.read([15]).wait()
    for name in here:
        before[name][[1, 2, 3, 15]] = there[name][[5, 0, 9, 15]]
        np.testing.assert_array_equal(here[name], before[name])
    pair.write([4], [6]).wait()
    assert all((there[name][6] == here[name][4]).all() for name in here)
    pair.read().wait()
    assert all((there[name] == here[name]).all() for name in here)
    with pytest.raises(IndexError, match="row 16 is out of range"):
        pair.read([16])
    with pytest.raises(ShapeMismatchError):
        pair.read([1, 2], [1])
    assert "PreparedPair with 'alone'" in repr(pair)


def test_a_list_needs_a_peer(agent: Agent) -> None:
    memory = np.zeros(1024, np.uint8)
    agent.register(memory)
    every_other = DescriptorList.of(MemoryKind.DRAM, [(memory.ctypes.data, 16, 0, 32, 32)])
    with pytest.raises(ConfigurationError, match="needs peer="):
        agent.prepare(every_other, every_other)


@pytest.mark.parametrize("empty", [[], ()])
def test_nothing_on_either_side(agent: Agent, empty: Any) -> None:
    with pytest.raises((ConfigurationError, UnsupportedBufferError)):
        agent.read(empty)


def test_lists_pair_with_lists(agent: Agent) -> None:
    memory = np.zeros(8, np.uint8)
    view = agent.register(memory)
    raw = DescriptorList.of(MemoryKind.DRAM, [(memory.ctypes.data, 8, 0)])
    for local, remote in ((view, raw), (raw, view)):
        with pytest.raises(UnsupportedBufferError, match="pairs with a DescriptorList"):
            agent.prepare(local, remote)


def test_read_only_memory_can_be_a_source(agent: Agent) -> None:
    source, target = agent.register(b"12345678"), agent.register(bytearray(8))
    with pytest.raises(ReadOnlyMemoryError):
        agent.read(target, into=source)
    assert agent.write(source, to=target).wait().ok


def test_memory_that_no_common_backend_reaches() -> None:
    with Agent("a", backends=[SteppedBackend("a")]) as agent:
        view = agent.register(np.zeros(8, np.uint8))
        with pytest.raises(NoBackendError, match="STEPPED: it does not reach DRAM within an agent"):
            agent.read(view, into=view)
