"""A run of the benchmark on a terminal: the table on standard output, everything else on standard error."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import typer

from trunkline.bench.plan import ignored_options
from trunkline.bench.record import Record
from trunkline.bench.roles import assign_roles
from trunkline.bench.session import find_rank, run_session
from trunkline.bench.table import LEGEND, Table
from trunkline.cli.progress import show_steps
from trunkline.errors import GroupError
from trunkline.text import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.bench.options import Options
    from trunkline.bench.plan import Step
    from trunkline.bench.result import Row
    from trunkline.bench.roles import Roles
    from trunkline.bench.team import Introduction, Link
    from trunkline.cli.progress import StepBar


def run_on_terminal(options: Options) -> None:
    """Run one worker; rank 0's prints the table and writes the files, also if it breaks off.

    Raises:
        TrunklineError: As :func:`~trunkline.bench.session.run_session`; or a file could not be written.
        KeyboardInterrupt: It was interrupted.
        typer.Exit: Blocks were wrong, or (for workers that another one started) somebody else told why it ended.
    """
    if not options.quiet:
        for text in ignored_options(options):
            _say(text)
        if not options.local and not options.is_storage:
            group = f"{options.size} workers of group {options.benchmark_group!r}"
            _say(f"waiting for {group}, {options.timeout:g} s at most")
    record = Record(options)
    is_complete = False
    try:
        is_first = options.is_storage or find_rank(options) in (0, None)
        with show_steps("steps", is_wanted=is_first and not options.quiet) as bar:
            run_session(options, Screen(options, record, bar))
        is_complete = True
        if record.notes and not options.quiet:
            _say("\n".join(record.notes))
    except GroupError as error:
        if options.quiet:
            raise typer.Exit(1) from error
        record.break_off(error)
        raise
    except BaseException as error:
        record.break_off(error)
        raise
    finally:
        failures = record.write(is_complete=is_complete) if record.rows else []
        for failure in failures:
            _say(f"trunkline: {failure}")
    if failures or any(row.wrong for row in record.rows):
        raise typer.Exit(1)


class Screen:
    """Listens to a run and shows it."""

    def __init__(self, options: Options, record: Record, bar: StepBar) -> None:
        self._options = options
        self._record = record
        self._bar = bar
        roles = assign_roles(options)
        self._table = Table(
            has_pairs=len(roles.pairs) > len(roles.teams),
            has_engines=len(roles.teams) > 1,
            has_operations=options.workload == "metadata",
            is_checked=options.check_consistency,
            width=shutil.get_terminal_size().columns if sys.stdout.isatty() else None,
        )
        self._has_table = "-" not in (options.csv, options.json, options.report)

    def introduced(self, rank: int, workers: list[Introduction], roles: Roles, links: list[Link]) -> None:
        """Print who is there and what carries the bytes; at rank 0 then the legend, and the table's first line."""
        options = self._options
        if not options.quiet:
            _say("\n".join(_roles_lines(options, workers, roles, links)))
        if rank != 0:
            return
        if not options.quiet:
            _say(f"{LEGEND}\n% of limit: the limit is {_limit(options)}")
            if self._has_table and self._table.missing:
                _say(f"no room here for {', '.join(self._table.missing)}: --csv and --json have them")
        if self._has_table:
            _print(self._table.header)

    def stepping(self, step: Step, count: int) -> None:
        """Show which step runs."""
        self._bar.update(step.number, count, f"{step.block_size:,} B × {step.batch_size}")

    def measured(self, row: Row) -> None:
        """Keep and print a row."""
        self._record.rows.append(row)
        if self._has_table:
            _print(self._table.line(row))

    def note(self, text: str) -> None:
        """Keep something for the end."""
        self._record.notes.append(text)

    def warn(self, text: str) -> None:
        """Keep and print something that a reader should know."""
        self._record.notes.append(text)
        _say(text)


def _limit(options: Options) -> str:
    if options.limit_gbps:
        return f"{options.limit_gbps:g} GB/s"
    if options.limit == "ucx":
        return "bare UCX between the first pair: a transfer's bytes in one piece, one after the other"
    return "a memcpy of a transfer's size, at rank 0"


def _roles_lines(options: Options, workers: list[Introduction], roles: Roles, links: list[Link]) -> Iterator[str]:
    transports = {(link.initiator, link.target): link.transport for link in links}
    verb = {"READ": "reads from", "WRITE": "writes to"}[options.op_type]
    for worker in workers:
        engine, _ = roles.team_of(worker.rank)
        where = f"rank {worker.rank}: pid {worker.pid} on {escape(worker.host)}, {engine} over {options.backend}"
        targets = roles.targets_of(worker.rank)
        if options.is_storage:
            what = f"{verb} {'objects' if options.backend == 'OBJ' else 'files'}"
        elif targets:
            what = ", ".join(f"{verb} rank {each} ({transports[worker.rank, each]})" for each in targets)
        else:
            what = f"target of {', '.join(str(each) for each in roles.initiators_of(worker.rank))}"
        yield f"{where}: {what}"


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
