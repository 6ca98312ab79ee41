"""Workers that meet: rendezvous, barriers, broadcasts. NIXL has nothing in its wheel to compare with."""

from __future__ import annotations

import statistics
import time
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from benchmarks.figure import Measurement
from benchmarks.participant import WARMUP
from benchmarks.process import Process
from trunkline.coordination import Group
from trunkline.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.run import Run
    from trunkline.store.contract import Store

WORKERS = 8
PAYLOAD = 64 << 10
MEETINGS = 200
RENDEZVOUS = 8


class Worker:
    """A worker in a process of its own, connected to the store before anything is measured."""

    def __init__(self, store: str) -> None:
        self._store: Store = open_store(store)
        self._store.get("/trunkline/groups/", timeout=30)
        self._group: Group | None = None

    def join(self, name: str, size: int) -> tuple[float, float]:
        """Return when the call began and ended."""
        began = time.monotonic()
        self._group = Group(name, size, store=self._store)
        return began, time.monotonic()

    def barriers(self, repetitions: int) -> list[float]:
        """Return the seconds of each."""
        group = self._joined()
        return [_timed(group.barrier) for _ in range(WARMUP + repetitions)][WARMUP:]

    def broadcasts(self, size: int, repetitions: int) -> list[float]:
        """Return the seconds of each."""
        group = self._joined()
        value = bytes(size) if group.rank == 0 else None
        return [_timed(lambda: group.broadcast(value)) for _ in range(WARMUP + repetitions)][WARMUP:]

    def leave(self) -> None:
        self._joined().close()

    def close(self) -> None:
        if self._group is not None:
            self._group.close()
        self._store.close()

    def _joined(self) -> Group:
        assert self._group is not None
        return self._group


def measure(run: Run, side: str) -> Iterator[Measurement]:
    """Let workers join a group, again and again, then meet in one."""
    if side != "ours":
        return
    with ExitStack() as cleanup:
        workers = [cleanup.enter_context(Process(Worker, run.store)) for _ in range(WORKERS)]
        rendezvous = []
        for _ in range(run.repeat(RENDEZVOUS)):
            spans = _join(workers[:2])
            _all(workers[:2], "leave")
            rendezvous.append(max(ended for _, ended in spans) - max(began for began, _ in spans))
        _join(workers)
        barriers = _all(workers, "barriers", run.repeat(MEETINGS))
        broadcasts = _all(workers, "broadcasts", PAYLOAD, run.repeat(MEETINGS))
    yield Measurement("rendezvous of 2 workers", "ms", statistics.median(rendezvous) * 1e3, "≤ 150")
    yield Measurement(f"barrier of {WORKERS} workers", "ms", _median(barriers) * 1e3, "≤ 5")
    yield Measurement(f"broadcast of 64 KiB to {WORKERS} workers", "ms", _median(broadcasts) * 1e3, "≤ 10")


def _join(workers: Sequence[Process]) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = _all(workers, "join", uuid.uuid4().hex, len(workers))
    return spans


def _all(workers: Sequence[Process], method: str, *arguments: object) -> list[Any]:
    for worker in workers:
        worker.start(method, *arguments)
    return [worker.result() for worker in workers]


def _median(times: Sequence[Sequence[float]]) -> float:
    return statistics.median(each for worker in times for each in worker)


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
