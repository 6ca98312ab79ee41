"""``trunkline bench import``, ``compare`` and ``report``: what becomes of results, measured now or long ago."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trunkline.cli.option import AsJson  # noqa: TC001 - typer reads the annotations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trunkline.bench.compare import Comparison, Measured, Pair
    from trunkline.bench.result import Run

JsonFile = Annotated[
    str | None, typer.Option("--json", metavar="PATH", help="Write the whole run as JSON; - is standard output.")
]
CsvFile = Annotated[
    str | None, typer.Option("--csv", metavar="PATH", help="Write the rows as CSV; - is standard output.")
]
ReportFile = Annotated[
    str | None,
    typer.Option("--report", metavar="PATH", help="Write a page with plots that opens offline; - is standard output."),
]


def import_(
    log: Annotated[str, typer.Argument(metavar="LOG", help="What NIXLBench printed; - is standard input.")],
    json: JsonFile = None,
    csv: CsvFile = None,
    report: ReportFile = None,
) -> None:
    """Read the text that NVIDIA's NIXLBench prints, and write it as results; as JSON to standard output by default."""
    from trunkline.bench.formats.file import read_file
    from trunkline.bench.formats.nixlbench import import_nixlbench
    from trunkline.bench.record import write_files
    from trunkline.text import escape

    run = import_nixlbench(read_file(log).decode(errors="replace"), log)
    for note in run.notes:
        typer.echo(f"note: {note}", err=True)
    if json is csv is report is None:
        json = "-"
    if [json, csv, report].count("-") > 1:
        raise typer.BadParameter("only one of --json, --csv and --report can go to standard output")
    failures = write_files(run, Path(log).name, csv=csv or "", json=json or "", report=report or "")
    for failure in failures:
        typer.secho(f"trunkline: {escape(str(failure))}", err=True, fg="red")
    if failures:
        raise typer.Exit(1)


def report(
    results: Annotated[
        list[str], typer.Argument(metavar="JSON...", help="Results; others are compared with the first.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="The page; - is standard output.")],
) -> None:
    """Draw results as a page with plots and tables that opens offline."""
    from trunkline.bench.report import write_report

    write_report(_read_all(results), output)
    if output != "-":
        typer.echo(f"written: {output}", err=True)


def compare(
    before: Annotated[str, typer.Argument(metavar="A.json", help="Results to compare with; - is standard input.")],
    after: Annotated[str, typer.Argument(metavar="B.json", help="Results to compare.")],
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="SETTING", help="A setting that may differ, as engine; may be repeated."),
    ] = None,
    fail_below: Annotated[
        float | None,
        typer.Option("--fail-below", min=0, metavar="RATIO", help="Exit 1 if a ratio is lower, or none can be told."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print for each tuple of settings the bandwidth of B over that of A, and what noise alone may do to it.

    The spread is one standard deviation as a part of the ratio, from the variation within each run. "Beyond noise" says
    whether the ratio is further from 1 than twice of it.
    """
    from trunkline.bench.compare import compare as compare_runs
    from trunkline.bench.formats import read
    from trunkline.bench.result import SETTINGS, find_flaws
    from trunkline.text import escape

    ignored = [name.replace("-", "_") for name in ignore or ()]
    if unknown := sorted(set(ignored) - set(SETTINGS)):
        raise typer.BadParameter(f"{', '.join(unknown)}: settings are {', '.join(SETTINGS)}", param_hint="--ignore")
    runs = read(before), read(after)
    for path, run in zip((before, after), runs, strict=True):
        for flaw in find_flaws(run):
            typer.echo(escape(f"{path}: {flaw}"), err=True)
    found = compare_runs(*runs, ignored=ignored)
    if as_json:
        _print_json(found, ignored)
    else:
        _print_table(found, before, after)
    if not found.pairs:
        _explain(found)
    ratios = [pair.ratio for pair in found.pairs if pair.ratio is not None]
    if fail_below is not None and min(ratios, default=-1.0) < fail_below:
        lowest = f"the lowest ratio is {min(ratios):.3f}" if ratios else "no ratio can be told"
        typer.secho(f"trunkline: {lowest}, and --fail-below is {fail_below}", err=True, fg="red")
        raise typer.Exit(1)


def _read_all(paths: Iterable[str]) -> dict[str, Run]:
    """Return the runs by the names of their files, or by their paths where two files have the same name."""
    from trunkline.bench.formats import read

    listed = list(paths)
    if len(set(listed)) < len(listed):
        raise typer.BadParameter("a file is given twice: each is compared with the first", param_hint="JSON")
    names = [Path(path).name for path in listed]
    titles = names if len(set(names)) == len(names) else listed
    return {title: read(path) for title, path in zip(titles, listed, strict=True)}


def _print_json(found: Comparison, ignored: list[str]) -> None:
    import msgspec

    document: dict[str, Any] = {
        "pairs": [_facts(pair) for pair in found.pairs],
        "only_before": found.only_before,
        "only_after": found.only_after,
        "ignored": ignored,
    }
    typer.echo(msgspec.json.encode(document).decode())


def _facts(pair: Pair) -> dict[str, Any]:
    def measured(each: Measured) -> dict[str, Any]:
        facts = each._asdict()
        del facts["row"]
        return facts

    return {
        **pair._asdict(),
        "before": measured(pair.before),
        "after": measured(pair.after),
        "is_different": pair.is_different if pair.spread is not None else None,
    }


def _print_table(found: Comparison, before: str, after: str) -> None:
    from trunkline.cli.table import print_table

    everything = [*(pair.settings for pair in found.pairs), *found.only_before, *found.only_after]
    shown = [
        name
        for name in (everything[0] if everything else ())
        if name in {"block_size", "batch_size"} or len({settings[name] for settings in everything}) > 1
    ]
    rows = [
        *((*_words(pair.settings, shown), *_figures(pair)) for pair in found.pairs),
        *((*_words(settings, shown), "", "", "", "", "", f"only in {before}") for settings in found.only_before),
        *((*_words(settings, shown), "", "", "", "", "", f"only in {after}") for settings in found.only_after),
    ]
    header = ("A GB/S", "B GB/S", "B/A", "SPREAD", "LATENCY B/A", "BEYOND NOISE")
    print_table((*(name.upper().replace("_", " ") for name in shown), *header), rows)


def _words(settings: Mapping[str, object], shown: Iterable[str]) -> tuple[str, ...]:
    return tuple("-" if settings[name] is None else str(settings[name]) for name in shown)


def _figures(pair: Pair) -> tuple[str, ...]:
    return (
        f"{pair.before.bandwidth_gb_s:.3f}",
        f"{pair.after.bandwidth_gb_s:.3f}",
        "-" if pair.ratio is None else f"{pair.ratio:.3f}",
        "-" if pair.spread is None else f"±{pair.spread:.1%}",
        "-" if pair.latency_ratio is None else f"{pair.latency_ratio:.3f}",
        "unknown" if pair.spread is None else "yes" if pair.is_different else "no",
    )


def _explain(found: Comparison) -> None:
    from trunkline.text import escape

    differing = [
        f"{name} ({' '.join(map(str, one))} | {' '.join(map(str, other))})"
        for name, (one, other) in found.differing.items()
    ]
    words = f"; they differ in {', '.join(differing)}: " if differing else ""
    advice = " ".join(f"--ignore {name}" for name in found.differing)
    typer.echo(escape(f"nothing was measured with the same settings in both{words}{advice}"), err=True)
