"""Several runs beside the first: the ratio by size, with what noise may do to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.bench.compare import compare
from trunkline.bench.report.markup import Markup, element, join
from trunkline.bench.report.plot import Plot, draw
from trunkline.bench.report.scale import number_word
from trunkline.bench.report.series import Line, choose_axis, is_drawn, is_of_pair, settings_word
from trunkline.bench.report.table import folded, make_table
from trunkline.bench.result import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trunkline.bench.compare import Comparison, Pair
    from trunkline.bench.report.series import Axis
    from trunkline.bench.result import Run


_MAY_DIFFER = ("engine", "backend", "initiator_seg_type", "target_seg_type", "num_threads", "pipeline_depth")
"""Settings that are ignored if nothing else can be compared: the same was moved, by other means."""


def compare_section(runs: Mapping[str, Run]) -> Markup:
    """Return how each run compares with the first of them."""
    (first, before), *others = runs.items()
    axis = choose_axis(runs.values())
    return element(
        "section",
        element("h2", f"Compared with {first}"),
        *(
            _compared(f"ratio-{number}", first, title, before, after, axis)
            for number, (title, after) in enumerate(others)
        ),
    )


def _compared(identity: str, first: str, title: str, before: Run, after: Run, axis: Axis) -> Markup:
    found, ignored = compare_what_fits(before, after)
    parts: list[str] = [element("h3", f"{title} over {first}")]
    if ignored:
        differ = ", ".join(f"{name} ({_values(one)} | {_values(other)})" for name, (one, other) in ignored.items())
        parts.append(element("p", f"They differ in {differ}; what else is set alike is compared."))
    if not found.pairs:
        return join(*parts, element("p", "Nothing was measured with the same settings in both."))
    shown = [name for name in SETTINGS if name in found.pairs[0].settings and _varies(found, name)]
    if lines := _lines(found, axis, [name for name in shown if name != axis]):
        plot = Plot(
            identity, f"Bandwidth of {title}, over that of {first}", axis, "ratio", is_logarithmic=False, reference=1
        )
        parts.append(element("div", draw(plot, lines), class_="plots"))
    parts.append(element("p", _verdict(found)))
    parts.append(folded("Every ratio", _table(found, shown or [axis])))
    return join(*parts)


def compare_what_fits(before: Run, after: Run) -> tuple[Comparison, dict[str, tuple[list[object], list[object]]]]:
    """Return a comparison, and which settings it had to ignore since the runs have no value of them in common."""
    found = compare(before, after)
    ignored = {name: values for name, values in found.differing.items() if name in _MAY_DIFFER}
    if found.pairs or not ignored:
        return found, {}
    return compare(before, after, ignored=ignored), ignored


def _values(values: list[object]) -> str:
    return ", ".join(str(value) for value in values)


def _varies(found: Comparison, name: str) -> bool:
    return len({pair.settings[name] for pair in found.pairs}) > 1


def _lines(found: Comparison, axis: Axis, names: list[str]) -> list[Line]:
    points: dict[str, dict[int, float]] = {}
    for pair in found.pairs:
        if pair.ratio is not None and is_drawn(pair.ratio) and not is_of_pair(pair.before.row):
            label = settings_word({name: pair.settings[name] for name in names}) or str(pair.settings["op_type"])
            points.setdefault(label, {})[getattr(pair.before.row, axis)] = pair.ratio
    return [Line(label, dict(sorted(values.items()))) for label, values in points.items()]


def _verdict(found: Comparison) -> str:
    ratios = sorted(pair.ratio for pair in found.pairs if pair.ratio is not None)
    if not ratios:
        return "No ratio can be told."
    known = [pair for pair in found.pairs if pair.spread is not None]
    words = [f"{len(ratios)} ratios, from {number_word(ratios[0])} to {number_word(ratios[-1])}"]
    if known:
        words.append(
            f"{sum(pair.is_different for pair in known)} of {len(known)} differ from 1 by more than twice their spread"
        )
    alone = len(found.only_before) + len(found.only_after)
    if alone:
        words.append(f"{alone} tuples of settings were measured in one of them only")
    return "; ".join(words) + "."


def _table(found: Comparison, shown: list[str]) -> Markup:
    return make_table(
        ("settings", "GB/s before", "GB/s after", "ratio", "spread", "latency ratio", "beyond noise"),
        [_cells(pair, shown) for pair in found.pairs],
        caption="Ratios; the spread is one standard deviation of the bandwidth ratio, as a part of it",
    )


def _cells(pair: Pair, shown: list[str]) -> tuple[str, ...]:
    def word(value: float | None) -> str:
        return "–" if value is None else number_word(value)

    return (
        settings_word({name: pair.settings[name] for name in shown}),
        word(pair.before.bandwidth_gb_s),
        word(pair.after.bandwidth_gb_s),
        word(pair.ratio),
        "–" if pair.spread is None else f"± {pair.spread:.1%}",
        word(pair.latency_ratio),
        "–" if pair.spread is None else "yes" if pair.is_different else "no",
    )
