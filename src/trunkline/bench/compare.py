"""Two runs beside each other: for each tuple of settings that both measured, how they differ, beyond noise or not."""

from __future__ import annotations

import math
from statistics import fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from trunkline.bench.result import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trunkline.bench.result import Row, Run

Settings = tuple[object, ...]
"""The values of SETTINGS that one measurement has, those that are ignored left out."""


class Measured(NamedTuple):
    """What a run measured with one tuple of settings; the mean of its rows where there are several.

    Attributes:
        row: The first of the rows.
        bandwidth_gb_s: The aggregate where there are several pairs.
        latency_avg_us: The average latency of a transfer.
        latency_p50_us: Its median; None where no percentiles were taken.
        variation: Standard deviation over mean of the bandwidth: between the rows, or as the one row says.
    """

    row: Row
    bandwidth_gb_s: float
    latency_avg_us: float
    latency_p50_us: float | None
    variation: float | None


class Pair(NamedTuple):
    """One tuple of settings that both runs measured.

    Attributes:
        settings: The settings by name, those that are ignored left out.
        before: What the first run measured.
        after: What the second measured.
        ratio: The bandwidth of the second, over that of the first; None where the first is 0.
        spread: What noise alone may do to the ratio: a standard deviation, as a part of it; None where unknown.
        latency_ratio: The same of the median latency, or of the average where one run has no median; less than 1 is
            better.
    """

    settings: dict[str, object]
    before: Measured
    after: Measured
    ratio: float | None
    spread: float | None
    latency_ratio: float | None

    @property
    def is_different(self) -> bool:
        """Whether the ratio is further from 1 than twice the spread; False where either is unknown."""
        return self.ratio is not None and self.spread is not None and abs(self.ratio - 1) > 2 * self.spread * self.ratio


class Comparison(NamedTuple):
    """What two runs have in common, and what only one of them measured.

    Attributes:
        pairs: In the order of the first run.
        only_before: Settings that only the first run measured.
        only_after: Settings that only the second measured.
        differing: Settings that have no value in common, by name with the values of both: where no pair is found,
            ignoring these finds some.
    """

    pairs: tuple[Pair, ...]
    only_before: tuple[dict[str, object], ...]
    only_after: tuple[dict[str, object], ...]
    differing: dict[str, tuple[list[object], list[object]]]


def compare(before: Run, after: Run, *, ignored: Iterable[str] = ()) -> Comparison:
    """Return how the second run differs from the first, for each tuple of settings.

    Args:
        before: What is compared with.
        after: What is compared.
        ignored: Settings that may differ, as ``engine`` to compare what another engine measured.
    """
    names = [name for name in SETTINGS if name not in set(ignored)]
    first, second = _by_settings(before, names), _by_settings(after, names)
    return Comparison(
        tuple(
            _pair(dict(zip(names, settings, strict=True)), measured, second[settings])
            for settings, measured in first.items()
            if settings in second
        ),
        tuple(dict(zip(names, settings, strict=True)) for settings in first if settings not in second),
        tuple(dict(zip(names, settings, strict=True)) for settings in second if settings not in first),
        _differing(first, second, names),
    )


def by_engine(run: Run) -> dict[str, Run]:
    """Return a run that measured several engines as a run of each, ``nixl`` first: what others are compared with."""
    engines = sorted({row.engine for row in run.rows}, key=lambda engine: (engine != "nixl", engine))
    return {
        engine: msgspec.structs.replace(run, rows=tuple(row for row in run.rows if row.engine == engine))
        for engine in engines
    }


def _by_settings(run: Run, names: list[str]) -> dict[Settings, Measured]:
    rows: dict[Settings, list[Row]] = {}
    for row in run.rows:
        rows.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    return {settings: _measured(same) for settings, same in rows.items()}


def _measured(rows: list[Row]) -> Measured:
    bandwidths = [_bandwidth(row) for row in rows]
    mean = fmean(bandwidths)
    variation = rows[0].variation if len(rows) == 1 else stdev(bandwidths) / mean if mean else None
    medians = [row.latency_p50_us for row in rows if row.latency_p50_us is not None]
    return Measured(
        rows[0],
        mean,
        fmean(row.latency_avg_us for row in rows),
        fmean(medians) if len(medians) == len(rows) else None,
        variation,
    )


def _bandwidth(row: Row) -> float:
    return row.bandwidth_gb_s if row.aggregate_gb_s is None else row.aggregate_gb_s


def _pair(settings: dict[str, object], before: Measured, after: Measured) -> Pair:
    known = before.variation is not None and after.variation is not None
    return Pair(
        settings,
        before,
        after,
        _ratio(after.bandwidth_gb_s, before.bandwidth_gb_s),
        math.hypot(before.variation or 0, after.variation or 0) if known else None,
        _latency_ratio(before, after),
    )


def _latency_ratio(before: Measured, after: Measured) -> float | None:
    if before.latency_p50_us is not None and after.latency_p50_us is not None:
        return _ratio(after.latency_p50_us, before.latency_p50_us)
    return _ratio(after.latency_avg_us, before.latency_avg_us)


def _ratio(value: float, over: float) -> float | None:
    """Return a ratio; None where nothing was measured that another can be compared with."""
    ratio = value / over if over > 0 else math.inf
    return ratio if math.isfinite(ratio) else None


def _differing(
    first: Iterable[Settings], second: Iterable[Settings], names: list[str]
) -> dict[str, tuple[list[object], list[object]]]:
    found = {}
    for place, name in enumerate(names):
        one = list(dict.fromkeys(settings[place] for settings in first))
        other = list(dict.fromkeys(settings[place] for settings in second))
        if one and other and not set(one) & set(other):
            found[name] = (one, other)
    return found
