"""The page: its sections in the order in which a reader asks, and its head."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from trunkline.bench.compare import by_engine
from trunkline.bench.report.comparison import compare_section
from trunkline.bench.report.facts import environment_section, options_section, rows_section, summary_section
from trunkline.bench.report.heatmap import heat_maps
from trunkline.bench.report.markup import Markup, element, join
from trunkline.bench.report.plot import Plot, draw
from trunkline.bench.report.scale import time_word
from trunkline.bench.report.series import choose_axis, limit_lines, lines_of, make_series
from trunkline.bench.report.table import folded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trunkline.bench.report.series import Axis, Series
    from trunkline.bench.result import Row, Run

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser may load for the page: nothing but the style within it."""

_PERCENTILES = {"P50": "p50", "P90": "p90", "P99": "p99", "P99.9": "p99_9"}
_MOST_SHOWN = 4
"""So many plots of percentiles are shown at once; the others are folded."""


def make_page(runs: Mapping[str, Run]) -> str:
    """Return a page of some runs as HTML.

    Args:
        runs: By the name that the page gives them; others are compared with the first. One that measured several
            engines is compared within itself.
    """
    title = "Trunkline benchmark: " + ", ".join(runs)
    style = files("trunkline.bench.report").joinpath("style.css").read_text()
    contenders = by_engine(next(iter(runs.values()))) if len(runs) == 1 else runs
    axis = choose_axis(runs.values())
    series = make_series(runs, axis)
    sections = [
        summary_section(runs),
        _plots(runs, series, axis),
        compare_section(contenders) if len(contenders) > 1 else Markup(),
        _percentiles(series, axis),
        _matrices(runs),
        rows_section(runs),
        environment_section(runs),
        options_section(runs),
    ]
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", title),
            element("style", Markup(style)),
        ),
        element("body", element("main", element("h1", title), *sections)),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def _plots(runs: Mapping[str, Run], series: list[Series], axis: Axis) -> Markup:
    bandwidths = lines_of(series, lambda row: row.bandwidth_gb_s)
    aggregates = lines_of(series, lambda row: row.aggregate_gb_s)
    latencies = lines_of(series, lambda row: row.latency_avg_us)
    figures = []
    if bandwidths:
        lines = [*bandwidths, *limit_lines(runs, axis)]
        figures.append(draw(Plot("bandwidth", "Bandwidth of one initiator", axis, "GB/s"), lines))
    if aggregates:
        figures.append(draw(Plot("aggregate", "Bandwidth of all pairs together", axis, "GB/s"), aggregates))
    if latencies:
        figures.append(draw(Plot("latency", "Average latency", axis, "latency", time_word), latencies))
    if not figures:
        return Markup()
    return element("section", element("h2", "Bandwidth and latency"), element("div", *figures, class_="plots"))


def _percentiles(series: list[Series], axis: Axis) -> Markup:
    """Return a plot for each series: how long the slowest transfers take, beside the usual ones."""
    figures = []
    for number, each in enumerate(series):
        lines = [
            line._replace(label=percent)
            for percent, name in _PERCENTILES.items()
            for line in lines_of([each], _latency(name))
        ]
        if lines:
            figures.append(draw(Plot(f"percentiles-{number}", each.label, axis, "latency", time_word), lines))
    if not figures:
        return Markup()
    shown = element("div", *figures[:_MOST_SHOWN], class_="plots")
    rest = element("div", *figures[_MOST_SHOWN:], class_="plots")
    more = [folded(f"{len(figures) - _MOST_SHOWN} more", rest)] if len(figures) > _MOST_SHOWN else []
    return element("section", element("h2", "Percentiles of the latency"), shown, *more)


def _latency(name: str) -> Callable[[Row], float | None]:
    def latency(row: Row) -> float | None:
        whole: float | None = getattr(row, f"latency_{name}_us")
        transfer: float | None = getattr(row, f"transfer_{name}_us")
        return transfer if whole is None else whole

    return latency


def _matrices(runs: Mapping[str, Run]) -> Markup:
    found = [(title, heat_maps(run)) for title, run in runs.items()]
    parts = [join(element("h3", title) if len(runs) > 1 else Markup(), markup) for title, markup in found if markup]
    return element("section", element("h2", "Every pair of workers"), *parts) if parts else Markup()
