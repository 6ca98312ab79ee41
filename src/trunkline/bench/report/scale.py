"""Axes: where a value lies, where the ticks are, how they are called."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_STEPS = (1, 2, 5, 10)
_KIBI = 1024
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_MOST_X_LABELS = 5
_MOST_Y_TICKS = 8


class Scale(NamedTuple):
    """One axis.

    Attributes:
        low: The least value on it.
        high: The greatest.
        start: Where the least lies, in the drawing's units.
        end: Where the greatest lies.
        ticks: Values to mark.
        is_logarithmic: Whether equal ratios are equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    is_logarithmic: bool

    def __call__(self, value: float) -> float:
        """Return where a value lies."""
        part = (
            math.log(value / self.low) / math.log(self.high / self.low)
            if self.is_logarithmic
            else (value - self.low) / (self.high - self.low)
        )
        return self.start + part * (self.end - self.start)


def size_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a logarithmic axis for sizes, marked at some of them."""
    sizes = sorted(set(values))
    step = -(-len(sizes) // _MOST_X_LABELS)
    low, high = (sizes[0], sizes[-1]) if len(sizes) > 1 else (sizes[0] / 2, sizes[0] * 2)
    return Scale(low, high, start, end, tuple(sizes[::step]), is_logarithmic=True)


def logarithmic_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a logarithmic axis from a round number below the least value to one above the greatest."""
    known = sorted(values)
    low, high = _round_down(known[0]), _round_up(known[-1])
    if low == high:
        low, high = low / 2, high * 2
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in (_STEPS[:3], _STEPS[:1]):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) <= _MOST_Y_TICKS:
            break
    every = -(-len(ticks) // _MOST_Y_TICKS)
    return Scale(low, high, start, end, tuple(ticks[::every]), is_logarithmic=True)


def linear_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """Return an axis from 0 to a round number above the greatest value."""
    step = _round_up(max(values) / 5)
    count = max(1, math.ceil(max(values) / step - 1e-9))
    ticks = tuple(step * number for number in range(count + 1))
    return Scale(0.0, ticks[-1], start, end, ticks, is_logarithmic=False)


def _round_down(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    return next(step * decade for step in reversed(_STEPS) if step * decade <= value * (1 + 1e-9))


def _round_up(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    return next(step * decade for step in _STEPS if step * decade >= value * (1 - 1e-9))


def size_word(value: float) -> str:
    """Return bytes in binary units: ``4 KiB``."""
    power = 0
    while value >= _KIBI and power < len(_UNITS) - 1:
        value /= _KIBI
        power += 1
    return f"{value:.4g} {_UNITS[power]}"


def number_word(value: float) -> str:
    """Return a number with about three digits, never with an exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    word = f"{value:,.{digits}f}"
    return word.rstrip("0").rstrip(".") if "." in word else word


def time_word(microseconds: float) -> str:
    """Return a time in the unit that suits it: ``12.5 µs``, ``3 ms``, ``2 s``."""
    for unit, count in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= count:
            return f"{number_word(microseconds / count)} {unit}"
    return f"{number_word(microseconds)} µs"


def count_word(value: float) -> str:
    """Return a count."""
    return f"{value:,.0f}"
