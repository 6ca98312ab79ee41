"""What a page says in words and tables: the sum of each run, every row, the machines, the options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.bench.report.markup import Markup, element, join
from trunkline.bench.report.scale import number_word, size_word, time_word
from trunkline.bench.report.table import folded, make_table
from trunkline.bench.result import SETTINGS, Row, find_flaws

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trunkline.bench.result import Run

_NEVER_LEFT_OUT = ("block_size", "batch_size", "transport", "bandwidth_gb_s", "latency_avg_us")


def summary_section(runs: Mapping[str, Run]) -> Markup:
    """Return what each run comes to, and above it what must not be overlooked."""
    return element(
        "section",
        *(alarm for title, run in runs.items() for alarm in _alarms(title, run)),
        element("div", *(_summary(title, run) for title, run in runs.items()), class_="cards"),
    )


def _alarms(title: str, run: Run) -> list[Markup]:
    return [element("p", f"{title}: {flaw}", class_="alarm", role="note") for flaw in find_flaws(run)]


def _summary(title: str, run: Run) -> Markup:
    facts = {
        "workload": run.workload,
        "started": run.started.replace("T", " ", 1),
        "group": run.group,
        "version": run.version,
        "engine": _all(run, "engine"),
        "backend": _all(run, "backend"),
        "transport": _all(run, "transport"),
        "limit": run.limit or "none",
    }
    if run.rows:
        fastest = max(run.rows, key=lambda row: row.bandwidth_gb_s)
        quickest = min(run.rows, key=lambda row: row.latency_avg_us)
        facts["peak bandwidth"] = f"{number_word(fastest.bandwidth_gb_s)} GB/s at {size_word(fastest.block_size)}"
        facts["lowest latency"] = f"{time_word(quickest.latency_avg_us)} at {size_word(quickest.block_size)}"
    checked = [row.wrong for row in run.rows if row.wrong is not None]
    facts["wrong blocks"] = f"{sum(checked):,}" if checked else "not checked"
    return element(
        "article",
        element("h2", title),
        element(
            "dl", *(element("div", element("dt", name), element("dd", fact)) for name, fact in facts.items() if fact)
        ),
        element("ul", *(element("li", note) for note in run.notes)) if run.notes else Markup(),
    )


def _all(run: Run, name: str) -> str:
    return ", ".join(dict.fromkeys(getattr(row, name) for row in run.rows))


def rows_section(runs: Mapping[str, Run]) -> Markup:
    """Return a table of all rows: columns that no row has are left out, as are settings that all have alike."""
    parts = [_rows(title, run) for title, run in runs.items() if run.rows]
    return element("section", element("h2", "All rows"), *parts) if parts else Markup()


def _rows(title: str, run: Run) -> Markup:
    columns, alike = [], {}
    for name in (*SETTINGS, *(name for name in Row.__struct_fields__ if name not in SETTINGS)):
        values = {getattr(row, name) for row in run.rows}
        if name in SETTINGS and len(values) == 1 and name not in _NEVER_LEFT_OUT:
            alike[name] = values.pop()
        elif values != {None} or name in _NEVER_LEFT_OUT:
            columns.append(name)
    # What names a row comes first: its size.
    columns.sort(key=lambda name: name != "block_size")
    table = make_table(
        columns,
        [[_cell(getattr(row, name)) for name in columns] for row in run.rows],
        caption=f"Rows of {title}",
    )
    same = ", ".join(f"{name} {value}" for name, value in alike.items() if value is not None)
    return join(element("p", f"{title}: all rows have {same}."), folded(f"{len(run.rows)} rows", table))


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number_word(value)
    return str(value)


def environment_section(runs: Mapping[str, Run]) -> Markup:
    """Return the machines beside each other; what differs is marked."""
    return _beside("Environment", {title: run.environment for title, run in runs.items()}, "not recorded")


def options_section(runs: Mapping[str, Run]) -> Markup:
    """Return the options beside each other; what differs is marked."""
    options = {title: {name: str(value) for name, value in run.options.items()} for title, run in runs.items()}
    return _beside("Options", options, "default")


def _beside(title: str, columns: Mapping[str, Mapping[str, str]], absent: str) -> Markup:
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    if not names:
        return Markup()
    rows = []
    for name in names:
        values = [column.get(name, absent) for column in columns.values()]
        is_same = len(set(values)) == 1
        rows.append([name, *(value if is_same else element("strong", value) for value in values)])
    marked = "; what differs is in bold" if len(columns) > 1 else ""
    return element("section", element("h2", title), make_table(("", *columns), rows, caption=title + marked))
