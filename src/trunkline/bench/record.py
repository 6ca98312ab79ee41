"""A run's results while they come in, and their files at the end, whatever that is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trunkline.bench.result import Run
from trunkline.errors import TrunklineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.bench.options import Options
    from trunkline.bench.result import Row


_DESCRIBE = (
    sys.executable, "-P", "-c",
    "import json; from trunkline.bench.environment import describe; print(json.dumps(describe()))",
)  # fmt: skip

_USER = re.compile(r"//[^/@]*@")
"""Who comes, in an address."""


class Record:
    """What the worker that writes the results keeps. Not for several threads at once.

    Args:
        options: The run's.
        workload: Which job it is, if not the one in the options.

    Attributes:
        rows: The rows so far.
        notes: What a reader should know.
    """

    def __init__(self, options: Options, workload: str = "") -> None:
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self._options = options
        self._workload = workload or options.workload
        self._started = datetime.now(UTC).astimezone().isoformat(timespec="seconds")

    def break_off(self, error: BaseException) -> None:
        """Note why the run did not come to its end."""
        self.notes.append(f"broke off: {'it was interrupted' if isinstance(error, KeyboardInterrupt) else error}")

    def run(self, *, is_complete: bool) -> Run:
        """Return it as a document."""
        from trunkline import __version__

        options = self._options
        noisy = sum(1 for row in self.rows if row.is_noisy)
        notes = list(self.notes)
        if noisy:
            notes.append(
                f"{noisy} of {len(self.rows)} rows are from a machine too noisy to trust them: their parts' bandwidth "
                "varied by more than a quarter"
            )
        return Run(
            rows=tuple(self.rows),
            version=__version__,
            started=self._started,
            workload=self._workload,
            group=_clean(options.benchmark_group),
            options={
                name: _clean(value) if isinstance(value, str) else value for name, value in options.given().items()
            },
            environment={name: _clean(fact) for name, fact in self._environment().items()},
            limit=None if options.workload != "sweep" else "given" if options.limit_gbps else options.limit,
            is_complete=is_complete,
            notes=tuple(notes),
        )

    def write(self, *, is_complete: bool) -> list[TrunklineError]:
        """Write the files that were asked for; return why some could not be, after all have been tried."""
        options = self._options
        if not (options.csv or options.json or options.report):
            return []
        run = self.run(is_complete=is_complete)
        return write_files(run, options.benchmark_group, csv=options.csv, json=options.json, report=options.report)

    def _environment(self) -> dict[str, str]:
        if self._options.engine != "nixl":
            from trunkline.bench.environment import describe

            return describe()
        # It loads UCX, and this process has NIXL's.
        told = subprocess.run(_DESCRIBE, capture_output=True, text=True, check=False)
        return dict(json.loads(told.stdout)) if told.returncode == 0 else {}


def write_files(run: Run, name: str, *, csv: str, json: str, report: str) -> list[TrunklineError]:
    """Write a run to files, standard output last; return why some could not be written, after all have been tried.

    Args:
        run: What was measured.
        name: What the page calls it.
        csv: Where its rows go as CSV; nowhere if empty.
        json: Where the run goes as JSON.
        report: Where a page of it goes.
    """
    from trunkline.bench import formats
    from trunkline.bench.report import write_report

    writers: tuple[tuple[str, Callable[[], None]], ...] = (
        (csv, lambda: formats.write(run, csv, "csv")),
        (json, lambda: formats.write(run, json, "json")),
        (report, lambda: write_report({name: run}, report)),
    )
    failures: list[TrunklineError] = []
    for path, write in sorted(writers, key=lambda one: one[0] == "-"):  # who reads that may go away
        try:
            if path:
                write()
        except TrunklineError as error:
            failures.append(error)
    return failures


def _clean(text: str) -> str:
    """Return a text without what no file of ours can hold, and no reader should: passwords in addresses."""
    return _USER.sub("//", os.fsencode(text).decode(errors="replace"))
