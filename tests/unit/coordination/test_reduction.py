from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.coordination.reduction import check_number, reduce_numbers
from trunkline.errors import ConfigurationError

integers = st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1)
numbers = st.lists(st.integers(-(2**53), 2**53) | st.floats(-1e300, 1e300), min_size=1)


@given(integers)
def test_integers_are_reduced_exactly(values: list[int]) -> None:
    assert reduce_numbers(values, "sum") == sum(values)
    assert reduce_numbers(values, "min") == min(values)
    assert reduce_numbers(values, "max") == max(values)
    assert reduce_numbers(values, "mean") == sum(values) / len(values)


@given(numbers.flatmap(lambda values: st.tuples(st.just(values), st.permutations(values))))
def test_the_order_of_workers_does_not_matter(orders: tuple[list[int | float], list[int | float]]) -> None:
    for reduction in ("sum", "min", "max", "mean"):
        assert reduce_numbers(orders[0], reduction) == reduce_numbers(orders[1], reduction)


@given(numbers, st.integers(0))
def test_one_that_is_no_number_makes_the_result_none(values: list[int | float], place: int) -> None:
    values.insert(place % (len(values) + 1), math.nan)
    for reduction in ("sum", "min", "max", "mean"):
        assert math.isnan(reduce_numbers(values, reduction))


@pytest.mark.parametrize("values", [[1e308, 1e308], [math.inf, -math.inf]])
def test_a_sum_that_no_float_holds_is_refused(values: list[float]) -> None:
    with pytest.raises(ConfigurationError, match="the sum of these numbers is no float"):
        reduce_numbers(values, "sum")


@pytest.mark.parametrize(
    ("values", "reduction", "result"),
    [
        ([2**53 + 1, 0.5, -(2**53)], "sum", 1.5),  # as floats the first and the last would cancel each other
        ([1e308, 1e308], "mean", 1e308),
        ([1e308, 1e308, -1e308], "sum", 1e308),
        ([math.inf, 1, 1e308], "sum", math.inf),
        ([-math.inf, -math.inf], "mean", -math.inf),
    ],
)
def test_results_are_rounded_once(values: list[int | float], reduction: str, result: float) -> None:
    assert reduce_numbers(values, reduction) == result


@pytest.mark.parametrize("value", [True, "1", None, 1j, [1]])
def test_only_numbers_can_be_reduced(value: object) -> None:
    with pytest.raises(ConfigurationError, match="is not an int or float"):
        check_number(value, "sum")


def test_a_reduction_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="there are sum, min, max, mean"):
        check_number(1, "product")
