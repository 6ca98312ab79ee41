from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.bench.report.scale import (
    count_word,
    linear_scale,
    logarithmic_scale,
    number_word,
    size_scale,
    size_word,
    time_word,
)
from trunkline.bench.report.series import LEAST_DRAWN, MOST_DRAWN

VALUES = st.lists(st.floats(LEAST_DRAWN, MOST_DRAWN, exclude_min=True, exclude_max=True), min_size=1, max_size=20)


@given(VALUES)
def test_logarithmic_axes_hold_their_values_and_have_ticks(values: list[float]) -> None:
    scale = logarithmic_scale(values, 100, 0)
    assert all(-0.01 <= scale(value) <= 100.01 for value in values)
    assert 1 <= len(scale.ticks) <= 8
    assert all(-0.01 <= scale(tick) <= 100.01 for tick in scale.ticks)


@given(VALUES)
def test_linear_axes_begin_at_0(values: list[float]) -> None:
    scale = linear_scale(values, 100, 0)
    assert scale(0) == 100
    assert all(-0.01 <= scale(value) <= 100.01 for value in values)
    assert 2 <= len(scale.ticks) <= 7


@given(st.lists(st.integers(1, 1 << 62), min_size=1, max_size=30))
def test_sizes_lie_from_end_to_end(sizes: list[int]) -> None:
    scale = size_scale(sizes, 0, 100)
    assert all(-0.01 <= scale(size) <= 100.01 for size in sizes)
    assert 1 <= len(scale.ticks) <= 5


def test_equal_ratios_are_equally_far_apart() -> None:
    scale = size_scale([1, 2, 4, 16], 0, 40)
    assert [scale(size) for size in (1, 2, 4, 16)] == pytest.approx([0, 10, 20, 40])
    scale = logarithmic_scale([0.3, 9.0], 0, 1)
    assert scale.low == pytest.approx(0.2)
    assert scale.high == pytest.approx(10)
    assert scale.ticks == pytest.approx((0.2, 0.5, 1, 2, 5, 10))


@pytest.mark.parametrize(
    ("value", "word"),
    [(0, "0"), (0.0123456, "0.0123"), (1, "1"), (9.876, "9.88"), (12345.6, "12,346"), (1e-7, "0.0000001")],
)
def test_numbers_have_three_digits_and_no_exponent(value: float, word: str) -> None:
    assert number_word(value) == word


def test_words_of_sizes_times_and_counts() -> None:
    assert [size_word(size) for size in (1, 4096, 1536, 64 << 20, 1 << 62)] == [
        "1 B", "4 KiB", "1.5 KiB", "64 MiB", "4 EiB",
    ]  # fmt: skip
    assert [time_word(time) for time in (0.5, 12.34, 1500, 2e6)] == ["0.5 µs", "12.3 µs", "1.5 ms", "2 s"]
    assert count_word(1234) == "1,234"
