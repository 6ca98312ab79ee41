"""The process that owns the local etcd: ``python -m trunkline.etcd.supervisor DIRECTORY BINARY``.

It detaches from whoever started it, runs the etcd, and ends it when nobody holds the users' lock any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import tempfile
import threading
from pathlib import Path

from trunkline.clock import Deadline
from trunkline.errors import TrunklineError
from trunkline.etcd.local import RECORD, SUPERVISOR_LOCK, USERS_LOCK, locked
from trunkline.etcd.server import EtcdServer


def supervise(place: Path, binary: Path) -> None:
    """Run an etcd as long as it has users, in a process of its own; returns there when it has ended."""
    with locked(place / SUPERVISOR_LOCK, fcntl.LOCK_EX, Deadline(0)):
        _detach()  # the lock goes along
        _run(place, binary)


def _run(place: Path, binary: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="trunkline-etcd-") as directory:
        try:
            server = EtcdServer(Path(directory), binary=binary).start()
        except TrunklineError as error:
            _write_record(place, error=str(error))
            return
        with server:
            _write_record(place, endpoint=server.endpoint, pid=server.pid, directory=directory)
            threading.Thread(target=_close_after_users, args=(server, place), daemon=True).start()
            server.wait()
        with contextlib.suppress(FileNotFoundError):
            (place / RECORD).unlink()


def _close_after_users(server: EtcdServer, place: Path) -> None:
    descriptor = os.open(place / USERS_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # kept until this process ends: newcomers wait for that
    server.close()


def _write_record(place: Path, **facts: object) -> None:
    draft = place / f"{RECORD}.new"
    draft.write_text(json.dumps(facts), "utf-8")
    draft.replace(place / RECORD)


def _detach() -> None:
    """Leave the session, the process tree and the error stream (a pipe that somebody reads) of whoever started us."""
    if os.fork():
        os._exit(0)
    os.setsid()
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), Path(sys.argv[2]))
