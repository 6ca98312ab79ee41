"""What transfers are compared with: a plain copy within one process's memory."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_BYTES = 256 << 20
"""Larger transfers are compared with copies of this size."""

LEAST_NS = 10_000_000
LEAST_COPIES = 5


@cache
def memcpy_gb_s(size: int, now: Callable[[], int] = time.perf_counter_ns) -> float:
    """Return how fast a copy of some size is, in 10^9 bytes a second: the median of copies during 10 ms, at least 5.

    Args:
        size: Bytes, one at least.
        now: The clock, in nanoseconds.
    """
    size = min(size, MOST_BYTES)
    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)
    times: list[int] = []
    began = now()
    while len(times) < LEAST_COPIES or now() - began < LEAST_NS:
        start = now()
        np.copyto(target, source)
        times.append(now() - start)
    return size / max(float(np.median(times)), 1.0)
