"""Loading many agents that have published."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.figure import Measurement
from benchmarks.process import Process
from benchmarks.run import CROWDS, PARTICIPANTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.run import Run

AGENTS = 100
MEMORY = 4096
FETCHERS = 3
"""How many agents, each in a fresh process, fetch them all in a full round."""


def measure(run: Run, side: str) -> Iterator[Measurement]:
    """Publish many agents from one process; let one agent after the other fetch them all by name."""
    names = [f"{side}-crowd-{number}" for number in range(AGENTS)]
    times = []
    with Process(CROWDS[side], names, MEMORY, run.store):
        for number in range(run.repeat(FETCHERS)):
            with Process(PARTICIPANTS[side], f"{side}-fetcher-{number}", run.store) as fetcher:
                fetcher.call("register", 1, MEMORY)
                times.append(fetcher.call("fetch_many", names))
    yield Measurement(f"{AGENTS} published agents → all loaded", "ms", statistics.median(times) * 1e3, "≤ 0.067")
