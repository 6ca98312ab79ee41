"""A progress bar on standard error, if that is a terminal."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID


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
