"""Nothing stays of a command that was killed: a process outside of it ends what it started and removes its directory.

Run as a script it is that process: ``keeper.py DIRECTORY``, with process ids on standard input, a line each, until
whoever started it closes that or dies.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_END_TIMEOUT_MS = 5_000


class Keeper:
    """A temporary directory and processes that end with this one, however it ends. A context manager.

    Not for several threads at once. A keeper that is killed itself takes nothing along.

    Args:
        prefix: What the directory's name begins with.

    Attributes:
        directory: The directory.
    """

    def __init__(self, prefix: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=prefix))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal is for us
        )

    def watch(self, pid: int) -> None:
        """Have a child of this process killed at the end, if it still runs then."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # somebody killed the keeper
            self._process.stdin.write(b"%d\n" % pid)
            self._process.stdin.flush()

    def close(self) -> None:
        """Kill what still runs and remove the directory. Idempotent."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        _remove(self.directory)  # if the keeper could not

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Keeper of {self.directory}, pid {self._process.pid}>"


def keep(directory: Path) -> None:
    """Take process ids until the end of standard input, then kill those processes and remove the directory."""
    handles: list[int] = []
    for line in sys.stdin:
        with suppress(ProcessLookupError):
            handles.append(os.pidfd_open(int(line)))  # which stays its own when the number goes to another
    for handle in handles:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    for handle in handles:
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        ended.poll(_END_TIMEOUT_MS)
    _remove(directory)


def _remove(directory: Path) -> None:
    import shutil  # takes a third of the script's start

    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
