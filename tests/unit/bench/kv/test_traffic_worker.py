from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.unit.bench.kv.ranks import CopyEngine, Threads, run_ranks

from trunkline.bench.kv.traffic import Pattern, Traffic
from trunkline.bench.kv.traffic_worker import TrafficRun, TrafficWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.bench.kv.access import OpType

ONE_TO_ALL = np.array([[0, 100, 200], [0, 0, 0], [0, 0, 0]])
ALL_TO_ONE = np.array([[0, 0, 0], [50, 0, 0], [70, 0, 0]])


def run(
    *matrices: np.ndarray,
    op_type: OpType = "WRITE",
    spoil: Callable[[list[list[int]]], None] | None = None,
    sleep: float = 0.0,
) -> tuple[TrafficRun, list[CopyEngine], list[float]]:
    patterns = tuple(Pattern(matrix=matrix, op_type=op_type, sleep=sleep) for matrix in matrices)
    traffic = Traffic(patterns=patterns, iterations=4, warmup=2, isolated=3)
    engines = [CopyEngine(spoil if rank == 0 else None) for rank in range(3)]
    slept: list[float] = []
    introduced: list[dict[str, str]] = []

    def work(group: Threads) -> TrafficRun | None:
        worker = TrafficWorker(group, traffic, is_checked=True, sleep=slept.append)
        worker.run(engines[group.rank], f"rank-{group.rank}", introduce=introduced.append)
        return worker.result("copy")

    found = run_ranks(3, work, [(0,), (1,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
    assert found[1:] == [None, None]
    assert introduced == [found[0].transports]
    return found[0], engines, slept


@pytest.mark.parametrize("op_type", ["READ", "WRITE"])
def test_patterns_are_moved_alone_and_among_the_others(op_type: OpType) -> None:
    found, engines, slept = run(ONE_TO_ALL, ALL_TO_ONE, op_type=op_type)
    assert (found.wrong, found.first_wrong, found.iterations, found.isolated) == (0, "", 4, 3)
    assert [(each.bytes, each.senders) for each in found.patterns] == [(300, 1), (120, 2)]
    times = 1 + 2 + 3 + 4  # checked, warm-up, alone, among the others
    one, other = ([0, 1, 1], [2, 0, 0]) if op_type == "READ" else ([2, 0, 0], [0, 1, 1])
    assert [engine.copied for engine in engines] == [
        (blocks + more) * times for blocks, more in zip(one, other, strict=True)
    ]
    pairs = {"0-1", "0-2", "1-0", "2-0"}
    assert found.transports == dict.fromkeys(pairs, "memmove")
    assert slept == []


def test_the_figures_follow_from_the_times() -> None:
    (pattern,) = run(ONE_TO_ALL)[0].patterns
    assert pattern.latency_avg_us is not None
    assert pattern.latency_p50_us is not None
    assert pattern.latency_p99_us is not None
    assert 0 < pattern.latency_p50_us <= pattern.latency_p99_us
    assert 0 < pattern.isolated_p50_us <= pattern.isolated_p99_us
    assert pattern.slowdown == pytest.approx(pattern.latency_p50_us / pattern.isolated_p50_us)
    assert pattern.bandwidth_gb_s == pytest.approx(300 / pattern.latency_avg_us / 1e3)


def test_ranks_compute_before_they_move_among_the_others() -> None:
    assert run(ALL_TO_ONE, sleep=0.25)[2] == [0.25] * 2 * 4


def test_a_byte_that_is_wrong_is_found() -> None:
    def spoil(rows: list[list[int]]) -> None:
        byte = ctypes.c_uint8.from_address(rows[0][0] + 7)
        byte.value ^= 1

    found, _, _ = run(ONE_TO_ALL, spoil=spoil)
    assert found.wrong == 1
    assert found.first_wrong.startswith(
        "pattern 1, from rank 0 to rank 1: block 0 of 100 bytes differs first at offset 7: "
    )


@pytest.mark.parametrize("rounds", range(5))
def test_what_broke_off_keeps_what_it_has(rounds: int) -> None:
    """Rank 0 gives up after so many rounds: two patterns alone, and four times both."""
    patterns = tuple(Pattern(matrix=matrix) for matrix in (ONE_TO_ALL, ALL_TO_ONE))
    traffic = Traffic(patterns=patterns, iterations=4, warmup=0, isolated=1)
    kept: list[TrafficRun | None] = []

    def progress(done: int, total: int) -> None:
        assert total == 6
        if done > rounds:
            raise InterruptedError

    def work(group: Threads) -> None:
        worker = TrafficWorker(group, traffic)
        try:
            worker.run(CopyEngine(), f"rank-{group.rank}", progress=progress if group.rank == 0 else lambda _, __: None)
        finally:
            if group.rank == 0:
                kept.append(worker.result("copy"))

    with pytest.raises((InterruptedError, threading.BrokenBarrierError)):
        run_ranks(3, work, [(0,), (1, 2)])
    (found,) = kept
    assert found is not None
    assert not found.is_complete
    done = rounds + 1  # the round after which it gave up is there, too
    assert (len(found.patterns), found.iterations) == (min(done, 2), max(0, done - 2))
    assert all(each.isolated_p50_us > 0 for each in found.patterns)
    assert [each.slowdown is not None for each in found.patterns] == [done > 2] * len(found.patterns)
