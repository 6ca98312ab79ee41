from __future__ import annotations

import itertools

from trunkline.bench.baseline import memcpy_gb_s


def test_a_copy_is_as_fast_as_the_clock_says() -> None:
    ticks = itertools.count(step=1_000_000)  # each copy lasts 1 ms
    assert memcpy_gb_s(2_000_000, lambda: next(ticks)) == 2.0


def test_a_real_copy_takes_some_time() -> None:
    assert 0.01 < memcpy_gb_s(1 << 20) < 10_000
