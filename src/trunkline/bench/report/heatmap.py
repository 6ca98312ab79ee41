"""A heat map of rows that each measured one pair of workers alone: initiators down, targets across."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from trunkline.bench.report.markup import Markup, element, join
from trunkline.bench.report.scale import number_word
from trunkline.bench.report.series import is_of_pair, settings_word
from trunkline.bench.report.table import scrolling
from trunkline.bench.result import SETTINGS

if TYPE_CHECKING:
    from trunkline.bench.result import Row, Run

SHADES = 8
"""Steps of the shade: 0 GB/s has 0, the fastest pair one less than this."""


def heat_maps(run: Run) -> Markup:
    """Return a heat map for each tuple of settings that pairs were measured with; nothing where there is none."""
    names = [name for name in SETTINGS if name not in {"initiator", "target"}]
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in run.rows:
        if is_of_pair(row):
            groups.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    shown = {"op_type", "block_size", "batch_size"} | {
        name for place, name in enumerate(names) if len({settings[place] for settings in groups}) > 1
    }
    return join(
        *(
            _heat_map(
                rows,
                settings_word({name: value for name, value in zip(names, settings, strict=True) if name in shown}),
            )
            for settings, rows in groups.items()
        )
    )


def _heat_map(rows: list[Row], settings: str) -> Markup:
    cells = {(row.initiator, row.target): row for row in rows}
    initiators = sorted({row.initiator for row in rows if row.initiator is not None})
    targets = sorted({row.target for row in rows if row.target is not None})
    values = [row.bandwidth_gb_s for row in rows]
    low, high, middle = min(values), max(values), median(values)
    title = f"Each pair alone: {settings}"

    def cell(initiator: int, target: int) -> Markup:
        row = cells.get((initiator, target))
        if row is None:
            return element("td", "–", class_="none")
        shade = int(row.bandwidth_gb_s / high * (SHADES - 1) + 0.5) if high else 0
        told = f"{initiator} → {target}: {number_word(row.bandwidth_gb_s)} GB/s by {row.transport}"
        return element("td", number_word(row.bandwidth_gb_s), class_=f"h{shade}", title=told)

    table = element(
        "table",
        element("caption", "GB/s; initiators down, targets across"),
        element(
            "thead",
            element(
                "tr",
                element("th", "from ↓ to →", scope="col"),
                *(element("th", str(target), scope="col") for target in targets),
            ),
        ),
        element(
            "tbody",
            *(
                element(
                    "tr",
                    element("th", str(initiator), scope="row"),
                    *(cell(initiator, target) for target in targets),
                )
                for initiator in initiators
            ),
        ),
        class_="heat",
    )
    slowest, fastest = min(rows, key=_bandwidth), max(rows, key=_bandwidth)
    words = (
        f"Slowest {number_word(low)} GB/s ({slowest.initiator} → {slowest.target}), median {number_word(middle)}, "
        f"fastest {number_word(high)} GB/s ({fastest.initiator} → {fastest.target})."
    )
    return element("figure", element("figcaption", element("h3", title)), scrolling(table, title), element("p", words))


def _bandwidth(row: Row) -> float:
    return row.bandwidth_gb_s
