"""Reducing the numbers of several workers to one."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

Reduction: TypeAlias = Literal["sum", "min", "max", "mean"]

REDUCTIONS: tuple[str, ...] = get_args(Reduction)


def check_number(value: object, reduction: str) -> None:
    """Refuse what can't be reduced.

    Raises:
        ConfigurationError: There is no such reduction, or the value is no number.
    """
    if reduction not in REDUCTIONS:
        raise ConfigurationError(f"reduce: there is no {reduction!r}; there are {', '.join(REDUCTIONS)}", op=reduction)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"reduce: {type(value).__name__} is not an int or float")


def reduce_numbers(values: Sequence[int | float], reduction: str) -> int | float:
    """Reduce numbers: exactly, and rounded once where the result is a float. One that is NaN makes it NaN.

    Raises:
        ConfigurationError: The result is too large for a float, or infinities of both signs have none.
    """
    if any(math.isnan(value) for value in values):
        return math.nan
    match reduction:
        case "min":
            return min(values)
        case "max":
            return max(values)
    if reduction == "sum" and all(isinstance(value, int) for value in values):
        return sum(values)
    infinities = {value for value in values if math.isinf(value)}
    if len(infinities) == 1:
        return infinities.pop()
    try:
        total = sum(map(Fraction, values))
        return float(total if reduction == "sum" else total / len(values))
    except OverflowError as error:
        raise ConfigurationError(
            f"reduce: the {reduction} of these numbers is no float: too large, or of infinities of both signs"
        ) from error
