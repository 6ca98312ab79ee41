"""Reducing the numbers of several workers to one."""

from __future__ import annotations

import math
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
    """Reduce numbers: exactly where all are integers, and the same whatever their order. One that is NaN makes it NaN.

    Raises:
        ConfigurationError: The sum is too large for a float.
    """
    if any(math.isnan(value) for value in values):
        return math.nan
    match reduction:
        case "min":
            return min(values)
        case "max":
            return max(values)
    try:
        is_whole = all(isinstance(value, int) for value in values)
        total: int | float = sum(values) if is_whole else math.fsum(values)
        return total if reduction == "sum" else total / len(values)
    except (OverflowError, ValueError) as error:  # what fsum says of a sum beyond floats, and of inf - inf
        raise ConfigurationError(f"reduce: the {reduction} of these numbers is no float: {error}") from error
