"""Between processes of one host: small and large blocks and scattered ones, against NIXL and against a plain copy."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.figure import Measurement
from benchmarks.run import open_pair
from benchmarks.transfer import BLOCK, MEMORY, SCATTERED, STRIDE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.run import Run

SIZES = [
    ("8 B", 8, 400, "≤ 1"),
    ("64 KiB", 64 << 10, 300, ""),
    ("1 MiB", 1 << 20, 200, "≥ 1"),
    ("8 MiB", 8 << 20, 40, ""),
    ("64 MiB", 64 << 20, 8, "≥ 1.5"),
]
"""Name, bytes of one block, how often it moves in a round, goal as a ratio to NIXL."""

LATENCY = 4096
"""Blocks up to this size are measured in time, larger ones in bandwidth."""


def measure(run: Run, side: str) -> Iterator[Measurement]:
    """Let ``a`` read and write ``b``'s memory; on our side, also copy within this process."""
    with open_pair(side) as (a, b):
        a.call("register", 1, MEMORY)
        base = b.call("register", 1, MEMORY)
        a.call("load", b.call("metadata"), base)
        for operation in ("READ", "WRITE"):
            for name, size, repetitions, goal in SIZES:
                seconds = statistics.median(a.call("move", operation, size, run.repeat(repetitions)))
                if size <= LATENCY:
                    yield Measurement(f"same host: {operation} {name}", "us", seconds * 1e6, goal)
                else:
                    yield Measurement(f"same host: {operation} {name}", "GB/s", size / seconds / 1e9, goal)
            total = statistics.median(a.call("scatter", operation, SCATTERED, BLOCK, STRIDE, run.repeat(5))["total"])
            yield Measurement(f"same host: {operation} {SCATTERED:,} × 4 KiB", "ms", total * 1e3, "≤ 0.25")
    if side == "ours":
        yield Measurement("a plain copy of 64 MiB by one thread", "GB/s", _copy_rate(run.repeat(8)))


def _copy_rate(repetitions: int) -> float:
    """Return how many billion bytes a second one thread copies within a process."""
    source, sink = np.ones(MEMORY, np.uint8), np.zeros(MEMORY, np.uint8)
    times = []
    for _ in range(1 + repetitions):
        began = time.perf_counter()
        sink[:] = source
        times.append(time.perf_counter() - began)
    return MEMORY / statistics.median(times[1:]) / 1e9
