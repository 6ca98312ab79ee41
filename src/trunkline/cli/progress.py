"""Progress bars on standard error, if that is a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID

REDRAWN_AFTER: Final = 0.1
"""Seconds between two drawings of a bar of steps, at least."""


class ProgressBar:
    """Bytes done out of a total; made by :func:`show_progress`. Use it from one thread."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def start(self, total: int) -> None:
        """Set how many bytes there are."""
        self._progress.update(self._task, total=total)

    def advance(self, count: int) -> None:
        """Add bytes that are done."""
        self._progress.advance(self._task, count)


@contextmanager
def show_progress(title: str) -> Iterator[ProgressBar]:
    """Show a bar while the context is open; nothing at all where standard error is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield ProgressBar(progress, progress.add_task(title, total=None))


class StepBar:
    """Steps done out of a total; made by :func:`show_steps`. Use it from one thread.

    It is drawn when something is told alone: a thread that did it would take its time from what is measured.
    """

    def __init__(self, title: str, progress: Progress | None) -> None:
        self._progress = progress
        self._task = None if progress is None else progress.add_task(title, total=None, visible=False)
        self._drawn = 0.0

    def update(self, done: int, total: int, title: str | None = None) -> None:
        """Tell how many of how many steps are done.

        Args:
            done: So many.
            total: Of so many.
            title: What is done next; such an update is drawn at once, others not more often than REDRAWN_AFTER says.
        """
        if self._progress is None or self._task is None:
            return
        now = time.monotonic()
        is_due = title is not None or now - self._drawn >= REDRAWN_AFTER
        self._progress.update(self._task, completed=done, total=total, description=title, visible=True, refresh=is_due)
        if is_due:
            self._drawn = now


@contextmanager
def show_steps(title: str, *, is_wanted: bool) -> Iterator[StepBar]:
    """Show a bar of steps while the context is open.

    Args:
        title: What is done.
        is_wanted: Whether to show it at all; where standard error is no terminal it is not.
    """
    if not is_wanted or not sys.stderr.isatty():
        yield StepBar(title, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns,
        console=Console(stderr=True, highlight=False),
        redirect_stdout=sys.stdout.isatty(),
        transient=True,
        auto_refresh=False,
    ) as progress:
        yield StepBar(title, progress)
