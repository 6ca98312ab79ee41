"""From clock readings to figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PARTS = 10
"""Into how many parts a measurement is cut to see how steady it was."""

NOISY = 0.25
"""The coefficient of variation of the parts from which on figures are not to be trusted."""

MOST_SAMPLES = 20_000
"""How many readings of one kind a worker sends at most; of more, so many that are evenly spread over them in order
of size, which keeps their percentiles."""


class Samples(msgspec.Struct):
    """What one worker's clocks said, in nanoseconds.

    Attributes:
        began: When each transfer began, or in an open loop was to begin.
        prepare: How long making each request took; empty if requests were made before.
        post: How long the posting call took.
        transfer: From its start to the end of the transfer.
        ended: When the end was seen.
    """

    began: NDArray[np.int64]
    prepare: NDArray[np.int64]
    post: NDArray[np.int64]
    transfer: NDArray[np.int64]
    ended: NDArray[np.int64]

    @classmethod
    def of(cls, columns: Sequence[Sequence[int]]) -> Samples:
        """Make them of five sequences."""
        return cls(*(np.array(column, np.int64) for column in columns))

    @classmethod
    def join(cls, those: Sequence[Samples]) -> Samples:
        """Put those of several threads together."""
        return cls(*(np.concatenate([getattr(each, name) for each in those]) for name in cls.__struct_fields__))


class Readings(msgspec.Struct, frozen=True):
    """Times of one kind.

    Attributes:
        count: How many there were.
        total_us: Their sum.
        ordered: They, or of many a selection, as float32 microseconds in order of size.
    """

    count: int
    total_us: float
    ordered: bytes

    @classmethod
    def of(cls, nanoseconds: NDArray[np.int64]) -> Readings:
        """Make them of clock readings."""
        found = np.sort(nanoseconds / 1e3)
        total = float(found.sum())
        if len(found) > MOST_SAMPLES:
            found = found[np.linspace(0, len(found) - 1, MOST_SAMPLES).round().astype(int)]
        return cls(len(nanoseconds), total, found.astype(np.float32).tobytes())


class Measured(msgspec.Struct, frozen=True):
    """What one initiator sends to the worker that writes the results.

    Attributes:
        rates: Bytes a second in each round.
        parts: Bytes a second in each part.
        latency: From the beginning of each transfer to its end.
        prepare: Making requests.
        post: Posting.
        transfer: From posting to the end.
    """

    rates: tuple[float, ...]
    parts: tuple[float, ...]
    latency: Readings
    prepare: Readings
    post: Readings
    transfer: Readings

    @property
    def rate(self) -> float:
        """Bytes a second over all rounds, which moved equally many."""
        return len(self.rates) / sum(1 / each for each in self.rates)


def condense(rounds: Sequence[Samples], transfer_size: int) -> Measured:
    """Return what is sent of a worker's rounds.

    Args:
        rounds: One measurement each.
        transfer_size: Bytes of a transfer.
    """
    parts = max(1, PARTS // len(rounds))
    joined = Samples.join(rounds)
    return Measured(
        rates=tuple(transfer_size * len(each.ended) / _seconds(each.ended.max() - each.began.min()) for each in rounds),
        parts=tuple(rate * transfer_size for each in rounds for rate in part_rates(each, parts)),
        latency=Readings.of(joined.ended - joined.began),
        prepare=Readings.of(joined.prepare),
        post=Readings.of(joined.post),
        transfer=Readings.of(joined.transfer),
    )


def part_rates(samples: Samples, parts: int = PARTS) -> list[float]:
    """Return transfers a second in each of several parts with equally many of them; fewer parts if there are few."""
    ends = np.sort(samples.ended)
    parts = min(parts, len(ends))
    cuts = np.linspace(0, len(ends), parts + 1).astype(int)
    bounds = np.concatenate([[samples.began.min()], ends[cuts[1:] - 1]])
    return [int(count) / _seconds(span) for count, span in zip(np.diff(cuts), np.diff(bounds), strict=True)]


def variation(rates: Sequence[float]) -> float | None:
    """Return the coefficient of variation: standard deviation over mean; None of fewer than two."""
    if len(rates) < 2:
        return None
    return float(np.std(rates, ddof=1) / np.mean(rates))


def percentile(those: Sequence[Readings], which: float) -> float | None:
    """Return a percentile over several workers' readings; None if there are none."""
    found = np.concatenate([np.frombuffer(each.ordered, np.float32) for each in those])
    return float(np.percentile(found, which)) if found.size else None


def mean(those: Sequence[Readings]) -> float | None:
    """Return their mean; None if there are none."""
    count = sum(each.count for each in those)
    return sum(each.total_us for each in those) / count if count else None


def _seconds(nanoseconds: float) -> float:
    return max(float(nanoseconds), 1.0) / 1e9
