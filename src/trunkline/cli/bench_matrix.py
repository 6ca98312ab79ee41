"""``trunkline bench matrix``: every pair of workers, as a check before a job and as a heat map."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trunkline.cli.bench_option import add_settings
from trunkline.cli.bench_ranks import SHARED, run_ranks
from trunkline.cli.progress import show_steps
from trunkline.text import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.engine.contract import Engine
    from trunkline.bench.matrix import Shape
    from trunkline.bench.options import Options
    from trunkline.bench.record import Record
    from trunkline.bench.result import Row

_ALIKE = ("num_iter", "warmup_iter", "num_threads", "pipeline_depth", "recreate_xfer")
"""Settings of the benchmark's that must be the same for all workers, beside those of every such command."""

_NAMED = 8
"""So many pairs are named; of more it is said how many there are."""

DEFAULTS: dict[str, Any] = {"num_iter": 50, "warmup_iter": 5}
"""Those that are others than the benchmark's."""

SHADES = (160, 166, 172, 178, 142, 106, 70, 34)
"""Colours of a terminal with 256 of them, from red (nothing) to green (the fastest pair)."""


def matrix(
    *,
    block_size: Annotated[
        str, typer.Option(metavar="SIZE", help="The size of blocks.", rich_help_panel="Sizes")
    ] = "1MiB",
    batch_size: Annotated[int, typer.Option(min=1, help="Blocks of one transfer.", rich_help_panel="Sizes")] = 8,
    min_gbps: Annotated[
        float, typer.Option(min=0, help="Exit with 1 if a pair moves less than this many 10^9 bytes a second.")
    ] = 0.0,
    **given: Any,
) -> None:
    """Measure every pair of workers, in both directions, and name those that are slower than the others.

    No two pairs that share a worker or a host are measured at the same time. The heat map has initiators down and
    targets across. Run the same command on each host, or --local 4 here.
    """
    from trunkline.bench.config_file import make_options
    from trunkline.bench.matrix import Shape
    from trunkline.bench.options import parse_size

    options = make_options({name: DEFAULTS.get(name) if value is None else value for name, value in given.items()})
    shape = Shape(parse_size(block_size), batch_size)
    _check(options, shape)
    _run(options, shape, min_gbps)


def _check(options: Options, shape: Shape) -> None:
    from trunkline.bench.ranks import check_run
    from trunkline.errors import ConfigurationError

    if not shape.block_size:
        raise ConfigurationError("--block-size must be 1 at least")
    count = options.local or options.workers
    if count < 2:
        raise ConfigurationError("a matrix has 2 workers at least: give --local or --workers, and how many there are")
    depth = options.num_threads * options.pipeline_depth
    check_run(options, [2 * depth * shape.transfer_size] * count)


def _run(options: Options, shape: Shape, min_gbps: float) -> None:
    from trunkline.bench.matrix import MatrixWorker
    from trunkline.bench.record import Record

    record = Record(options, workload="matrix")
    wrong: list[str] = []

    def work(group: Coordinator, engine: Engine, name: str) -> None:
        def measured(row: Row, first: str) -> None:
            record.rows.append(row)
            if first:
                wrong.append(first)

        with show_steps("rounds", is_wanted=not (group.rank or options.quiet)) as bar:
            worker = MatrixWorker(group, options, shape, measured=measured, stepping=bar.update)
            worker.run(engine, name, _introducer(options))

    facts = {"--block-size": str(shape.block_size), "--batch-size": str(shape.batch_size)}
    command = ["matrix", *(word for fact in facts.items() for word in fact)]
    # those that are others by default here than of a sweep must be said
    command += [word for name in DEFAULTS for word in (f"--{name.replace('_', '-')}", str(getattr(options, name)))]
    facts |= {f"--{name.replace('_', '-')}": str(getattr(options, name)) for name in _ALIKE}
    complaints: list[str] = []
    is_complete = False
    try:
        run_ranks(options, command, facts, work)
        is_complete = True
    except BaseException as error:
        record.break_off(error)
        raise
    finally:
        if record.rows:
            complaints = _conclude(record, options, min_gbps, wrong, is_complete=is_complete)
    if complaints:
        raise typer.Exit(1)


def _conclude(
    record: Record, options: Options, min_gbps: float, wrong: Sequence[str], *, is_complete: bool
) -> list[str]:
    """Print the map and what is to be said of it, write the files; return why this is no success."""
    from trunkline.bench.matrix import find_outliers

    rows = record.rows
    if "-" not in (options.csv, options.json, options.report):
        show(rows, options.size)
    complaints = [
        f"{_pair(row)} moves {row.bandwidth_gb_s:.3f} GB/s, less than {min_gbps:g}"
        for row in rows
        if row.bandwidth_gb_s < min_gbps
    ]
    complaints += [f"wrong bytes: {each}" for each in wrong]
    notes = [*_words(*find_outliers(rows), rows), *complaints]
    if not is_complete:
        notes.insert(0, _missing(rows, options.size))
    record.notes += notes
    for note in notes:
        typer.echo(escape(note), err=True)
    for failure in record.write(is_complete=is_complete):
        typer.secho(f"trunkline: {escape(str(failure))}", err=True, fg="red")
        complaints.append(str(failure))
    return complaints


def _missing(rows: Sequence[Row], size: int) -> str:
    """Return in words how many pairs were measured, and which were not, if they are few."""
    known = {(row.initiator, row.target) for row in rows}
    pairs = list(permutations(range(size), 2))
    left = [f"rank {a} → rank {b}" for a, b in pairs if (a, b) not in known]
    some = f"; not {', '.join(left)}" if len(left) <= _NAMED else ""
    return f"{len(known)} of {len(pairs)} pairs were measured{some}"


def _introducer(options: Options) -> Callable[[dict[str, str]], None]:
    def introduce(transports: dict[str, str]) -> None:
        those = dict.fromkeys(transports.values())
        for transport in those:
            pairs = [pair.replace("-", " → ") for pair, its in transports.items() if its == transport]
            some = ", ".join(pairs) if len(pairs) <= _NAMED else f"{len(pairs)} pairs"
            typer.echo(f"{options.engine} over {options.backend}, {escape(transport)}: {some}", err=True)

    return (lambda _: None) if options.quiet else introduce


def _words(slow: Sequence[Row], blamed: Sequence[int], rows: Sequence[Row]) -> Iterator[str]:
    if not slow:
        return
    from statistics import median

    middle = median(row.bandwidth_gb_s for row in rows)
    for rank in blamed:
        its = [row for row in slow if rank in (row.initiator, row.target)]
        yield f"rank {rank} is slow with {len({row.initiator for row in its} | {row.target for row in its}) - 1} others"
    for row in slow:
        if row.initiator not in blamed and row.target not in blamed:
            yield f"{_pair(row)} is slow: {row.bandwidth_gb_s:.3f} GB/s, where the median pair moves {middle:.3f}"


def _pair(row: Row) -> str:
    return f"rank {row.initiator} → rank {row.target}"


def show(rows: Sequence[Row], size: int) -> None:
    """Print the map on standard output: GB/s; on a terminal with colours, and in parts that fit its width."""
    from rich.text import Text

    from trunkline.cli.table import format_table, make_console

    found = {(row.initiator, row.target): row for row in rows}
    high = max(row.bandwidth_gb_s for row in rows) or 1.0
    corner = "GB/S from ↓ to →"

    def word(row: Row | None) -> str:
        return "-" if row is None else f"{row.bandwidth_gb_s:.3f}{' !' if row.is_noisy else ''}"

    console = make_console()
    if not console.is_terminal:
        lines = [(str(a), *(word(found.get((a, b))) for b in range(size))) for a in range(size)]
        console.print(format_table((corner, *map(str, range(size))), lines))
        return
    width = max(len(word(row)) for row in rows) + 1
    columns = max(1, (console.width - len(corner)) // width)
    for start in range(0, size, columns):
        targets = range(start, min(start + columns, size))
        console.print(Text(corner + "".join(f"{target:>{width}}" for target in targets), style="bold"))
        for initiator in range(size):
            line = Text(f"{initiator:>{len(corner)}}")
            for row in (found.get((initiator, target)) for target in targets):
                shade = 0 if row is None else min(int(row.bandwidth_gb_s / high * len(SHADES)), len(SHADES) - 1)
                line.append(" ")
                line.append(f"{word(row):>{width - 1}}", "dim" if row is None else f"black on color({SHADES[shade]})")
            console.print(line)


add_settings(matrix, (*SHARED, "op_type", *_ALIKE, "limit_gbps", "csv", "report"))
