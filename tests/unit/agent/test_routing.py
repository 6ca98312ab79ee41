"""Which backend an agent's transfers take, and what it says of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent
from trunkline.backend.contract import Capabilities, Cost
from trunkline.backend.plugins.loopback import LoopbackBackend
from trunkline.errors import ConfigurationError, NotRegisteredError
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Iterator

DRAM = frozenset({MemoryKind.DRAM})


class Other(LoopbackBackend):
    name = "OTHER"
    capabilities = Capabilities(DRAM, own_kinds=DRAM, cost=Cost(start=1.0, row=0.0, rate=1e9))


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent("a", store="", backends=["loopback", Other("a")]) as made:
        yield made


def test_takes_the_cheapest_and_explains_it(agent: Agent) -> None:
    one, two = agent.register(np.arange(256, dtype=np.uint8)), agent.register(np.zeros(256, np.uint8))
    pair = agent.prepare(one, two)
    found = agent.explain(pair)
    assert found.backend == "LOOPBACK"
    assert not found.is_measured
    assert "LOOPBACK: taken" in str(found)
    assert "OTHER: could, but takes longer" in str(found)
    handle = pair.write().wait()
    assert handle.telemetry.backend == "LOOPBACK"
    assert agent.explain(handle).backend == "LOOPBACK"


def test_the_last_large_transfer_says_what_the_next_will_take(agent: Agent) -> None:
    size = 1 << 20
    one, two = agent.register(np.ones(size, np.uint8)), agent.register(np.zeros(size, np.uint8))
    handle = agent.write(one, to=two).wait()
    found = agent.explain(handle)
    assert found.is_measured
    assert found.seconds == pytest.approx(handle.telemetry.total_us / 1e6)


def test_one_is_taken_by_name(agent: Agent) -> None:
    one, two = agent.register(np.arange(256, dtype=np.uint8)), agent.register(np.zeros(256, np.uint8))
    assert agent.write(one, to=two, backend="other").wait().telemetry.backend == "OTHER"
    with pytest.raises(ConfigurationError, match="no backend 'UCX' open"):
        agent.write(one, to=two, backend="ucx")


def test_blocks_are_split_over_several(agent: Agent) -> None:
    source, sink = np.arange(4096, dtype=np.uint8).reshape(64, 64), np.zeros((64, 64), np.uint8)
    one, two = agent.register(source), agent.register(sink)
    order = np.random.default_rng(1).permutation(64)
    handle = agent.write(one[order], to=two, backend=["loopback", "other"], notify=b"both").wait()
    assert handle.telemetry.backend == "LOOPBACK+OTHER"
    assert handle.telemetry.blocks == 64
    np.testing.assert_array_equal(sink, source[order])
    note = agent.wait_notification(timeout=5)
    assert (note.sender, note.payload, note.ok) == ("a", b"both", True)


def test_a_notification_follows_a_backend_that_carries_none(agent: Agent) -> None:
    one, two = agent.register(np.arange(256, dtype=np.uint8)), agent.register(np.zeros(256, np.uint8))
    handle = agent.write(one, to=two, notify=b"1").wait()
    handle.post(b"2").wait()
    assert [note.payload for note in agent.take_notifications()] == [b"1", b"2"]


def test_a_backend_opened_later_gets_what_was_registered(agent: Agent) -> None:
    with Agent("b", store="", backends=["loopback"]) as other:
        view = other.register(np.ones(64, np.uint8))
        sink = other.register(np.zeros(64, np.uint8))
        other.engine.add_backend(late := Other("b"))
        with pytest.raises(NotRegisteredError):
            other.write(view, to=sink, backend="other").wait()
        other._memory.adopt("OTHER")
        assert other.write(view, to=sink, backend="other").wait().ok
        assert late.outstanding == 2
        other.deregister(view)
        assert late.outstanding == 1


def test_backends_says_what_is_there_and_what_is_not(agent: Agent) -> None:
    reports = {report.name: report for report in agent.backends()}
    assert list(reports)[:2] == ["LOOPBACK", "OTHER"]
    assert reports["LOOPBACK"].is_open
    assert str(reports["LOOPBACK"]) == "LOOPBACK: open: DRAM+FILE here, DRAM+FILE within the agent"
    assert not reports["UCX"].is_open
    assert reports["UCX"].reason is None
    assert str(reports["UCX"]) == "UCX: not open"
