"""Rows as lines of a plot: those that differ in nothing but the size on the x axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from trunkline.bench.report.scale import size_word
from trunkline.bench.result import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from trunkline.bench.result import Row, Run

Axis = Literal["block_size", "batch_size"]

LEAST_DRAWN, MOST_DRAWN = 1e-9, 1e18
"""What lies outside is in the tables alone."""

_WORDS: dict[str, Callable[[object], str]] = {
    "pairs": lambda value: f"{value} pair{'s' * (value != 1)}",
    "num_threads": lambda value: f"{value} thread{'s' * (value != 1)}",
    "pipeline_depth": lambda value: f"depth {value}",
    "rate_per_s": lambda value: "closed loop" if value is None else f"{value:g}/s",
    "block_size": lambda value: size_word(float(str(value))),
    "batch_size": lambda value: f"batch {value}",
    "initiator_seg_type": lambda value: f"from {value}",
    "target_seg_type": lambda value: f"to {value}",
}


class Series(NamedTuple):
    """One line.

    Attributes:
        label: What tells it from the others.
        rows: By what is on the x axis.
    """

    label: str
    rows: dict[int, Row]


class Line(NamedTuple):
    """What is drawn of one series.

    Attributes:
        label: For the legend.
        points: Values by what is on the x axis; greater than 0.
        noisy: On which of them the row was too noisy to trust.
        is_limit: Whether it is what others are measured against.
    """

    label: str
    points: dict[int, float]
    noisy: frozenset[int] = frozenset()
    is_limit: bool = False


def is_of_pair(row: Row) -> bool:
    """Whether one pair of workers was measured alone: a cell of a heat map, no point of a line."""
    return row.initiator is not None and row.target is not None


def choose_axis(runs: Iterable[Run]) -> Axis:
    """Return what the x axis shows: block sizes, but batch sizes where only these were varied."""
    rows = [row for run in runs for row in run.rows if not is_of_pair(row)]
    is_of_batches = len({row.block_size for row in rows}) == 1 and len({row.batch_size for row in rows}) > 1
    return "batch_size" if is_of_batches else "block_size"


def make_series(runs: Mapping[str, Run], axis: Axis) -> list[Series]:
    """Return the lines of all runs; of rows with the same settings in one run the last is taken."""
    found: dict[tuple[object, ...], dict[int, Row]] = {}
    names = [name for name in SETTINGS if name != axis]
    for title, run in runs.items():
        for row in run.rows:
            if not is_of_pair(row):
                settings = (title, *(getattr(row, name) for name in names))
                found.setdefault(settings, {})[getattr(row, axis)] = row
    labels = _label(list(found), ["run", *names])
    return [Series(label, rows) for label, rows in zip(labels, found.values(), strict=True)]


def lines_of(series: Iterable[Series], value: Callable[[Row], float | None]) -> list[Line]:
    """Return what is drawn of each series: what the rows say, where it is a number greater than 0."""
    lines = []
    for each in series:
        points = {
            x: known for x, row in sorted(each.rows.items()) if (known := value(row)) is not None and is_drawn(known)
        }
        noisy = frozenset(x for x in points if each.rows[x].is_noisy)
        if points:
            lines.append(Line(each.label, points, noisy))
    return lines


def is_drawn(value: float) -> bool:
    """Whether a logarithmic axis can show it."""
    return LEAST_DRAWN < value < MOST_DRAWN


def limit_lines(runs: Mapping[str, Run], axis: Axis) -> list[Line]:
    """Return the limits of all runs, one line where they are the same."""
    found: dict[tuple[tuple[int, float], ...], dict[str, str]] = {}
    for title, run in runs.items():
        limits: dict[int, dict[int, float]] = {}
        for row in run.rows:
            if row.limit_gb_s is not None and is_drawn(row.limit_gb_s) and not is_of_pair(row):
                other = row.batch_size if axis == "block_size" else row.block_size
                limits.setdefault(other, {})[getattr(row, axis)] = row.limit_gb_s
        for points in limits.values():
            found.setdefault(tuple(sorted(points.items())), {})[title] = run.limit or "of unknown origin"
    return [
        Line(f"limit: {', '.join(dict.fromkeys(titles.values()))}{_of(titles, runs)}", dict(points), is_limit=True)
        for points, titles in found.items()
    ]


def _of(titles: Mapping[str, str], runs: Mapping[str, Run]) -> str:
    return "" if len(titles) == len(runs) else f" of {', '.join(titles)}"


def settings_word(settings: Mapping[str, object]) -> str:
    """Return settings as a reader says them: ``WRITE, 4 KiB, batch 16``."""
    return ", ".join(_WORDS.get(name, str)(value) for name, value in settings.items())


def _label(settings: Sequence[tuple[object, ...]], names: Sequence[str]) -> list[str]:
    """Return for each tuple what tells it from the others; all of them alike are called by their operation.

    What follows from the first of them (the run) tells nothing more.
    """
    runs = len({each[0] for each in settings})
    differing = [
        place
        for place in range(len(names))
        if len({each[place] for each in settings}) > 1
        and (place == 0 or len({(each[0], each[place]) for each in settings}) > runs)
    ]
    places = differing or [names.index("op_type")]
    return [settings_word({names[place]: each[place] for place in places}) for each in settings]
