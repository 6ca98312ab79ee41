"""``trunkline bench matrix``: every pair of workers, as a check before a job and as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trunkline.cli.bench_option import add_settings
from trunkline.cli.terminal import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.engine.contract import Engine
    from trunkline.bench.matrix import Shape
    from trunkline.bench.options import Options
    from trunkline.bench.record import Record
    from trunkline.bench.result import Row

SETTINGS = (
    "local", "workers", "rank", "benchmark_group", "etcd_endpoints", "timeout", "engine", "backend", "op_type",
    "num_iter", "warmup_iter", "num_threads", "pipeline_depth", "recreate_xfer", "check_consistency", "seed",
    "total_buffer_size", "enable_pt", "progress_threads", "device_list", "limit_gbps", "csv", "json", "report", "quiet",
)  # fmt: skip
"""The benchmark's settings that this command has, too."""

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
    import numpy as np

    from trunkline.bench.ranks import check_run
    from trunkline.errors import ConfigurationError

    if not shape.block_size:
        raise ConfigurationError("--block-size must be 1 at least")
    count = options.local or options.workers
    if count < 2:
        raise ConfigurationError("a matrix has 2 workers at least: give --local or --workers, and how many there are")
    depth = options.num_threads * options.pipeline_depth
    check_run(options, np.array([2 * depth * shape.transfer_size] * count, np.int64))


def _run(options: Options, shape: Shape, min_gbps: float) -> None:
    from trunkline.bench.matrix import MatrixWorker
    from trunkline.bench.ranks import run_worker
    from trunkline.bench.record import Record
    from trunkline.cli.bench_kv_run import bar

    record = Record(options, workload="matrix")
    wrong: list[str] = []

    def work(group: Coordinator, engine: Engine, name: str) -> None:
        def measured(row: Row, first: str) -> None:
            record.rows.append(row)
            if first:
                wrong.append(first)

        with bar("rounds", options, group.rank) as progress:
            worker = MatrixWorker(group, options, shape, measured=measured, stepping=progress)
            worker.run(engine, name, _introducer(options))

    facts = {
        "--block-size": str(shape.block_size),
        "--batch-size": str(shape.batch_size),
        "--num-iter": str(options.num_iter),
        "--warmup-iter": str(options.warmup_iter),
    }
    command = ["matrix", *(word for fact in facts.items() for word in fact)]
    facts |= {
        f"--{name.replace('_', '-')}": str(getattr(options, name))
        for name in ("num_threads", "pipeline_depth", "recreate_xfer")
    }
    complaints: list[str] = []
    is_complete = False
    try:
        run_worker(options, command, facts, work)
        is_complete = True
    except BaseException as error:
        record.notes.append(f"broke off: {error or type(error).__name__}")
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
    if "-" not in (options.csv, options.json):
        _show(rows)
    complaints = [
        f"{_pair(row)} moves {row.bandwidth_gb_s:.3f} GB/s, less than {min_gbps:g}"
        for row in rows
        if row.bandwidth_gb_s < min_gbps
    ]
    complaints += [f"wrong bytes: {each}" for each in wrong]
    record.notes += [*_words(*find_outliers(rows), rows), *complaints]
    for note in record.notes:
        typer.echo(escape(note), err=True)
    for failure in record.write(is_complete=is_complete):
        typer.secho(f"trunkline: {escape(str(failure))}", err=True, fg="red")
        complaints.append(str(failure))
    return complaints


def _introducer(options: Options) -> Callable[[dict[str, str]], None]:
    def introduce(transports: dict[str, str]) -> None:
        those = dict.fromkeys(transports.values())
        for transport in those:
            pairs = [pair.replace("-", " → ") for pair, its in transports.items() if its == transport]
            some = ", ".join(pairs) if len(pairs) <= 8 else f"{len(pairs)} pairs"
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


def _show(rows: Sequence[Row]) -> None:
    """Print the map on standard output: GB/s, with colours on a terminal."""
    from rich.table import Table
    from rich.text import Text

    from trunkline.cli.table import format_table, make_console

    found = {(row.initiator, row.target): row for row in rows}
    ranks = sorted({rank for pair in found for rank in pair if rank is not None})
    high = max(row.bandwidth_gb_s for row in rows) or 1.0
    header = ("GB/S from ↓ to →", *(str(rank) for rank in ranks))

    def word(row: Row | None) -> str:
        return "-" if row is None else f"{row.bandwidth_gb_s:.3f}{' !' if row.is_noisy else ''}"

    console = make_console()
    if not console.is_terminal:
        console.print(format_table(header, [(str(a), *(word(found.get((a, b))) for b in ranks)) for a in ranks]))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for title in header:
        table.add_column(title, justify="right")
    for initiator in ranks:
        cells = []
        for target in ranks:
            row = found.get((initiator, target))
            shade = 0 if row is None else min(int(row.bandwidth_gb_s / high * len(SHADES)), len(SHADES) - 1)
            cells.append(Text(word(row), style="dim" if row is None else f"black on color({SHADES[shade]})"))
        table.add_row(str(initiator), *cells)
    console.print(table, soft_wrap=False)


add_settings(matrix, SETTINGS)
