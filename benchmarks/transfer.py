"""Latency, bandwidth, scattered blocks, notifications."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.figure import Measurement
from benchmarks.run import open_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.run import Run

MEMORY = 64 << 20
LATENCIES = [("8 B", 8, 400, "≤ 2.5"), ("4 KiB", 4096, 400, ""), ("64 KiB", 65536, 300, "")]
BANDWIDTHS = [("1 MiB", 1 << 20, 60, "≥ 0.95"), ("64 MiB", 64 << 20, 6, "≥ 0.95")]
"""Name, bytes of one block, how often it moves in a round, goal."""

SCATTERED, BLOCK, STRIDE = 10_000, 4096, 4096 + 64
PINGS = 400


def measure(run: Run, side: str) -> Iterator[Measurement]:
    """Let ``a`` read and write ``b``'s memory, then let them send each other notifications."""
    with open_pair(side) as (a, b):
        base_a, base_b = (process.call("register", 1, MEMORY) for process in (a, b))
        a.call("load", b.call("metadata"), base_b)
        b.call("load", a.call("metadata"), base_a)
        for operation in ("READ", "WRITE"):
            for name, size, repetitions, goal in LATENCIES:
                seconds = statistics.median(a.call("move", operation, size, run.repeat(repetitions)))
                yield Measurement(f"{operation} {name}", "us", seconds * 1e6, goal)
            for name, size, repetitions, goal in BANDWIDTHS:
                seconds = statistics.median(a.call("move", operation, size, run.repeat(repetitions)))
                yield Measurement(f"{operation} {name}", "GB/s", size / seconds / 1e9, goal)
            parts = a.call("scatter", operation, SCATTERED, BLOCK, STRIDE, run.repeat(5))
            for part, times in parts.items():
                goal = "plan + post about 3 ms" if part == "plan" else ""
                name = f"{operation} {SCATTERED:,} × 4 KiB, {part}"
                yield Measurement(name, "ms", statistics.median(times) * 1e3, goal)
        b.start("echo", f"{side}-a", run.repeat(PINGS))
        times = a.call("ping", f"{side}-b", bytes(32), run.repeat(PINGS))
        b.result()
        yield Measurement("notification round trip", "us", statistics.median(times) * 1e6)
