"""Making and loading metadata of many regions."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.figure import Measurement
from benchmarks.run import open_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.run import Run

REGIONS = [(1, 1, 50), (99, 100, 50), (9_900, 10_000, 10)]
"""How many regions of 4 KiB are added, how many there are then, and how often they are encoded and loaded."""


def measure(run: Run, side: str) -> Iterator[Measurement]:
    """Encode in one process, load in another; more and more regions."""
    with open_pair(side) as (a, b):
        for added, count, repetitions in REGIONS:
            a.call("register", added, 4096)
            times = a.call("encode", run.repeat(repetitions))
            yield Measurement(f"metadata of {count:,} regions, encode", "us", statistics.median(times) * 1e6)
            data = a.call("metadata")
            times = b.call("decode", data, run.repeat(repetitions))
            yield Measurement(f"metadata of {count:,} regions, load", "us", statistics.median(times) * 1e6)
            yield Measurement(f"metadata of {count:,} regions, size", "KB", len(data) / 1e3)
