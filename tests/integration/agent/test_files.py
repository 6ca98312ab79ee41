"""Files through the agent: registered, written, read, and what goes wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent, DescriptorList, File, MemoryKind, typed
from trunkline.errors import (
    BackendError,
    MemoryRegistrationError,
    NotRegisteredError,
    SegmentNotFoundError,
    TransferCancelledError,
    TransferDeadlineError,
    TransferError,
)
from trunkline.testing.link import bytes_of
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the POSIX backend is for Linux only")

BLOCKS, SIZE = 64, 4096


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent("spiller", timeout=PATIENCE) as made:
        yield made


def test_blocks_go_to_a_file_and_come_back(agent: Agent, tmp_path: Path) -> None:
    cache = bytes_of(BLOCKS * SIZE, 1).reshape(BLOCKS, SIZE)
    kept = cache.copy()
    kv = agent.register(cache)
    with File(tmp_path / "spill", "w+", size=BLOCKS * SIZE) as file:
        spill = agent.register(typed(file, "U8", (BLOCKS, SIZE)))
    places = np.random.default_rng(0).permutation(BLOCKS)
    transfer = agent.write(kv, to=spill[places]).wait()
    assert transfer.telemetry.backend == "POSIX"
    on_disk = np.fromfile(tmp_path / "spill", np.uint8).reshape(BLOCKS, SIZE)
    np.testing.assert_array_equal(on_disk[places], kept)
    cache[:] = 0
    agent.read(spill[places[::2]], into=kv[np.arange(0, BLOCKS, 2)], tag="back").wait()
    np.testing.assert_array_equal(cache[::2], kept[::2])
    assert not cache[1::2].any()
    assert [each.tag for each in agent.take_finished()] == ["back"]


def test_a_file_that_was_cut_is_an_error_that_says_what_landed(agent: Agent, tmp_path: Path) -> None:
    kv = agent.register(np.zeros(BLOCKS * SIZE, np.uint8))
    spill = agent.register(File(tmp_path / "spill", "w+", size=BLOCKS * SIZE))
    os.truncate(tmp_path / "spill", 5 * SIZE)
    with pytest.raises(TransferError, match=r"found the file's end \(it has 20,480 bytes\); 20,480 of 262,144 bytes"):
        agent.read(spill, into=kv).wait()


def test_a_file_to_be_read_only_is_not_written(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(bytes(SIZE))
    given = agent.register(File(tmp_path / "given"))
    with pytest.raises((BackendError, MemoryRegistrationError), match=r"(?i)read"):
        agent.write(agent.register(np.zeros(SIZE, np.uint8)), to=given)


def test_cancelled_and_expired_transfers_are_quiet_and_may_be_made_again(agent: Agent, tmp_path: Path) -> None:
    size = 256 << 20
    memory = np.ones(size, np.uint8)
    kv = agent.register(memory)
    spill = agent.register(File(tmp_path / "spill", "w+", size=size))
    transfer = agent.write(kv, to=spill)
    transfer.cancel()
    with pytest.raises(TransferCancelledError):
        transfer.wait()
    expiring = agent.write(kv, to=spill, deadline=1e-6)
    with pytest.raises(TransferDeadlineError):
        expiring.wait()
    agent.deregister(spill)
    agent.deregister(kv)
    memory[:] = 2  # quiet: nothing of this arrives
    assert set(np.unique(np.fromfile(tmp_path / "spill", np.uint8)).tolist()) <= {0, 1}


def test_files_that_are_closed_while_registered_stay_apart(agent: Agent, tmp_path: Path) -> None:
    """Their descriptors' numbers are what transfers tell files apart by; a number is used again once it is free."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    memory = np.zeros((4, SIZE), np.uint8)
    kv = agent.register(memory)
    spills = []
    for number in range(4):
        with File(tmp_path / str(number), "w+", size=SIZE) as file:
            spills.append(agent.register(file))
        memory[number] = number + 1
    del file
    for number, spill in enumerate(spills):
        agent.write(kv[number], to=spill).wait()
    for number in range(4):
        assert (np.fromfile(tmp_path / str(number), np.uint8) == number + 1).all()
    for spill in spills:
        agent.deregister(spill)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_number_that_comes_to_mean_another_file_is_refused(agent: Agent, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(bytes(SIZE))
    number = os.open(tmp_path / "one", os.O_RDWR)
    segments = DescriptorList.of(MemoryKind.FILE, [(0, SIZE, number)])
    one = agent.register(segments)
    os.close(number)
    assert os.open(tmp_path / "two", os.O_RDWR) == number
    with pytest.raises(MemoryRegistrationError, match="stands for another file"):
        agent.register(segments)
    agent.deregister(one)
    agent.register(segments)
    os.close(number)


def test_a_direct_file_of_any_size(agent: Agent, tmp_path: Path) -> None:
    memory = bytes_of(3 * SIZE, 1)
    kv = agent.register(memory)
    with File(tmp_path / "direct", "w+", size=2 * SIZE + 100, direct=True) as file:
        spill = agent.register(file)
    agent.write(kv[: 2 * SIZE], to=spill[: 2 * SIZE]).wait()
    with pytest.raises(BackendError, match=r"direct' was opened with O_DIRECT.*pad them, or open it without"):
        agent.write(kv[: 2 * SIZE + 100], to=spill)
    memory[:] = 9
    agent.read(spill, into=kv[: 2 * SIZE + 100]).wait()
    np.testing.assert_array_equal(memory[: 2 * SIZE], bytes_of(3 * SIZE, 1)[: 2 * SIZE])
    assert not memory[2 * SIZE : 2 * SIZE + 100].any()
    assert (memory[2 * SIZE + 100 :] == 9).all()


def test_what_was_deregistered_is_not_used(agent: Agent, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    kv = agent.register(np.ones(SIZE, np.uint8))
    spill = agent.register(File(tmp_path / "spill", "w+", size=SIZE))
    pair = agent.prepare(kv, spill)
    pair.write().wait()
    agent.deregister(spill)
    with pytest.raises((NotRegisteredError, SegmentNotFoundError), match="not registered"):
        pair.write().wait()
    del spill, pair
    assert len(list(Path("/proc/self/fd").iterdir())) == before
