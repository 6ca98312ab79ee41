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
from trunkline.bench.report.scale import gigabyte_word, time_word
from trunkline.bench.report.series import Line, choose_axis, limit_lines, lines_of, make_series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trunkline.bench.report.series import Axis, Series
    from trunkline.bench.result import Row, Run

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser may load for the page: nothing but the style within it."""

_PERCENTILES = {"50": "p50", "90": "p90", "99": "p99", "99.9": "p99_9"}


def make_page(runs: Mapping[str, Run]) -> str:
    """Return a page of some runs as HTML.

    Args:
        runs: By the name that the page gives them; others are compared with the first. One that measured several
            engines is compared within itself.
    """
    title = "Trunkline benchmark: " + ", ".join(runs)
    style = files("trunkline.bench.report").joinpath("style.css").read_text()
    contenders = by_engine(next(iter(runs.values()))) if len(runs) == 1 else runs
    sections = [
        summary_section(runs),
        _plots(runs),
        compare_section(contenders) if len(contenders) > 1 else Markup(),
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


def _plots(runs: Mapping[str, Run]) -> Markup:
    axis = choose_axis(runs.values())
    series = make_series(runs, axis)
    if not series:
        return Markup()
    figures = [
        *_plot("bandwidth", "Bandwidth of one initiator", axis, [
            *lines_of(series, lambda row: row.bandwidth_gb_s), *limit_lines(runs, axis)
        ], "bandwidth", gigabyte_word),
        *_plot("aggregate", "Bandwidth of all pairs together", axis, lines_of(series, lambda row: row.aggregate_gb_s),
               "bandwidth", gigabyte_word),
        *_plot("latency", "Average latency", axis, lines_of(series, lambda row: row.latency_avg_us), "latency",
               time_word),
    ]  # fmt: skip
    return element(
        "section",
        element("h2", "Bandwidth and latency"),
        element("div", *figures, class_="plots"),
        *_percentiles(series, axis),
    )


def _plot(
    identity: str, title: str, axis: Axis, lines: list[Line], quantity: str, word: Callable[[float], str]
) -> list[Markup]:
    return (
        [draw(Plot(identity, title, axis, quantity, word), lines)] if any(not each.is_limit for each in lines) else []
    )


def _percentiles(series: list[Series], axis: Axis) -> list[Markup]:
    """Return a plot for each series: how long the slowest transfers take, beside the usual ones."""
    figures = []
    for number, each in enumerate(series):
        lines = [
            line._replace(label=f"{percent} % take at most")
            for percent, name in _PERCENTILES.items()
            for line in lines_of([each], _latency(name))
        ]
        if lines:
            figures.append(draw(Plot(f"percentiles-{number}", each.label, axis, "latency", time_word), lines))
    if not figures:
        return []
    return [element("h2", "Percentiles of the latency"), element("div", *figures, class_="plots")]


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
