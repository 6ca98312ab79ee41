"""Nothing stays of a command that was killed: a process outside of it ends what it started and removes its directory.

Run as a script it is that process: ``keeper.py DIRECTORY``. It leads a process group that the others are started in,
and waits until whoever started it closes its standard input, or dies.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_PAUSE = 0.02
_END_TIMEOUT = 5.0


class Keeper:
    """A temporary directory, and a process group, that end with this process, however it ends. A context manager.

    What is started with ``process_group=keeper.group`` belongs to it, and no Ctrl-C at the terminal reaches it. Not for
    several threads at once. A keeper that is killed itself takes nothing along. Where there is no ``/proc`` (macOS) it
    removes the directory only.

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
            process_group=0,
        )

    @property
    def group(self) -> int:
        """The process group."""
        return self._process.pid

    def close(self) -> None:
        """Kill what still runs and remove the directory. Idempotent."""
        assert self._process.stdin is not None
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
    """Wait for the end of standard input, then kill this process's group but itself, and remove the directory."""
    sys.stdin.read()
    end = time.monotonic() + _END_TIMEOUT
    calm = 0  # one that was started in the last moment joins the group a little later
    while calm < 2 and time.monotonic() < end:
        others = _others()
        for pid in others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        calm = 0 if others else calm + 1
        time.sleep(_PAUSE)
    _remove(directory)


def _others() -> list[int]:
    """Return the processes of this one's group, without itself and those that have ended."""
    own, found = os.getpgrp(), []
    for folder in Path("/proc").glob("*"):  # none where there is no /proc
        if not folder.name.isdecimal() or int(folder.name) == os.getpid():
            continue
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            state, _, group, *_ = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            if int(group) == own and state != b"Z":
                found.append(int(folder.name))
    return found


def _remove(directory: Path) -> None:
    import shutil  # takes a third of the script's start

    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
