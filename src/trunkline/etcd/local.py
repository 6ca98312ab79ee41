"""An etcd for this machine: one that its users share, or one in the foreground.

The shared one belongs to a supervising process (:mod:`trunkline.etcd.supervisor`), never to one of its users, so any of
them may be killed. Three lock files in a directory of the user's say who is there; the kernel gives the locks of a
dead process back:

* ``users.lock``: each user holds it shared; the supervisor waits for it alone, and then ends the server;
* ``supervisor.lock``: held by the supervisor as long as it lives;
* ``start.lock``: held while somebody looks for the server or starts it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trunkline.clock import Deadline
from trunkline.errors import ConfigurationError, StoreUnavailableError
from trunkline.etcd.keeper import Keeper
from trunkline.etcd.server import EtcdServer, find_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

USERS_LOCK = "users.lock"
SUPERVISOR_LOCK = "supervisor.lock"
START_LOCK = "start.lock"
RECORD = "server.json"
_POLL_INTERVAL = 0.02
_LOOK_TIMEOUT = 5.0
_SUPERVISOR = (sys.executable, "-P", "-m", "trunkline.etcd.supervisor")  # -P: not what lies in the working directory


class LocalEtcd:
    """A claim on the etcd of this machine and user; made by :meth:`acquire`, ended by :meth:`release`.

    Attributes:
        endpoint: URL (or comma-separated URLs) of the etcd.
    """

    def __init__(self, endpoint: str, users_lock: int | None) -> None:
        self.endpoint = endpoint
        self._users_lock = users_lock

    @classmethod
    def acquire(
        cls, endpoints: str | None = None, *, directory: Path | None = None, timeout: float | None = 30.0
    ) -> Self:
        """Find or start an etcd.

        Args:
            endpoints: If given, those are used and nothing is started.
            directory: Where its users meet, which nobody else may write to; None for a directory of this user's.
            timeout: Seconds to wait until it serves.

        Raises:
            ConfigurationError: There is no etcd to start (says what to install), or this user's directory is not
                theirs alone.
            StoreUnavailableError: It did not start in time.
        """
        if endpoints:
            return cls(endpoints, None)
        binary = find_binary()
        place = directory or runtime_directory()
        deadline = Deadline(timeout)
        with locked(place / START_LOCK, fcntl.LOCK_EX, deadline):
            users_lock = _lock(place / USERS_LOCK, fcntl.LOCK_SH, deadline)
            try:
                return cls(_find_or_start(place, binary, deadline), users_lock)
            except BaseException:
                os.close(users_lock)
                raise

    def release(self) -> None:
        """Give the claim up; the etcd ends with its last user. Idempotent."""
        if self._users_lock is not None:
            os.close(self._users_lock)
            self._users_lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<LocalEtcd {self.endpoint}>"


def running_endpoint(directory: Path | None = None) -> str | None:
    """Return the endpoint of the etcd of this machine and user if one runs; starts nothing, and makes no claim on it.

    Args:
        directory: Where its users meet; None for a directory of this user's.
    """
    place = directory or runtime_directory()
    if not (place / START_LOCK).exists():
        return None
    with locked(place / START_LOCK, fcntl.LOCK_EX, Deadline(_LOOK_TIMEOUT)):
        found = _read(place / RECORD)
        return str(found["endpoint"]) if "endpoint" in found and _is_supervised(place) else None


def serve_foreground(
    announce: Callable[[str], None], *, port: int = 0, data_dir: Path | None = None, timeout: float | None = 30.0
) -> None:
    """Run an etcd until Ctrl-C or SIGTERM. Only in the main thread.

    Args:
        announce: Called with its URL once it serves.
        port: Port for clients; 0 for a free one.
        data_dir: Where its data stay; None for a directory that is deleted at the end.
        timeout: Seconds to wait until it serves.

    Raises:
        ConfigurationError: There is no etcd to start.
        StoreUnavailableError: It did not start, or ended by itself.
    """
    binary = find_binary()
    with Keeper("trunkline-etcd-") as keeper, _interrupted_by_sigterm():
        try:
            server = EtcdServer(data_dir or keeper.directory, binary=binary, port=port)
            with server.start(timeout, keeper=keeper):
                announce(server.endpoint)
                status = server.wait()
        except KeyboardInterrupt:
            return
    raise StoreUnavailableError(f"{server.binary} ended by itself with status {status}", endpoint=server.endpoint)


def runtime_directory() -> Path:
    """Return this user's directory for locks, made if need be.

    Raises:
        ConfigurationError: Another user could meddle with it, or it can't be made.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    place = Path(runtime, "trunkline") if runtime else Path(tempfile.gettempdir(), f"trunkline-{os.getuid()}")
    try:
        with suppress(FileExistsError):
            place.mkdir(mode=0o700, parents=True)
        status = place.lstat()
    except OSError as error:
        raise ConfigurationError(
            f"no directory for the locks of the local etcd: {error}; set XDG_RUNTIME_DIR to a directory of yours",
            path=str(place),
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigurationError(
            f"{place} must be a directory of yours with mode 0700; remove it, or set XDG_RUNTIME_DIR", path=str(place)
        )
    return place


@contextmanager
def locked(path: Path, kind: int, deadline: Deadline) -> Iterator[None]:
    """Hold a lock file; ``kind`` is one of ``fcntl``'s."""
    descriptor = _lock(path, kind, deadline)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, kind: int, deadline: Deadline) -> int:
    """Lock a file and return its descriptor, whose closing unlocks it (also when the process dies)."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if deadline.has_passed:
                os.close(descriptor)
                raise StoreUnavailableError(
                    f"starting the local etcd: {path} was locked by another process for {deadline.elapsed:.1f} s",
                    path=str(path),
                    elapsed=deadline.elapsed,
                ) from None
            time.sleep(_POLL_INTERVAL)
        else:
            return descriptor


def _find_or_start(place: Path, binary: Path, deadline: Deadline) -> str:
    record = place / RECORD
    if "error" in _read(record):  # of an earlier start, told to who made it
        record.unlink()
    while True:
        found = _read(record)
        if "error" in found:
            raise StoreUnavailableError(f"starting the local etcd: {found['error']}", path=str(place))
        if not _is_supervised(place):
            _clear_leavings(record)
            _start_supervisor(place, binary, deadline)
        elif "endpoint" in found:
            return str(found["endpoint"])
        if deadline.has_passed:
            raise StoreUnavailableError(
                f"the local etcd did not start within {deadline.elapsed:.1f} s (see {place})", path=str(place)
            )
        time.sleep(_POLL_INTERVAL)


def _start_supervisor(place: Path, binary: Path, deadline: Deadline) -> None:
    """Start a supervisor; it detaches itself once it has its lock, so this ends at once."""
    try:
        subprocess.run(
            [*_SUPERVISOR, str(place), str(binary)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=deadline.remaining(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or b""
        raise StoreUnavailableError(
            f"starting the local etcd: {error}: {' | '.join(said.decode('utf-8', 'replace').splitlines()[-3:])}",
            path=str(place),
        ) from error


def _read(record: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(record.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _is_supervised(place: Path) -> bool:
    try:
        with locked(place / SUPERVISOR_LOCK, fcntl.LOCK_EX, Deadline(0)):
            return False
    except StoreUnavailableError:
        return True


def _clear_leavings(record: Path) -> None:
    """Remove what a supervisor that was killed left behind, its etcd included."""
    found = _read(record)
    if "directory" in found:
        directory = str(found["directory"])
        command = Path("/proc", str(found["pid"]), "cmdline")
        if command.exists() and directory.encode() in command.read_bytes():  # the number was not given to another
            os.kill(int(found["pid"]), signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)
    record.unlink(missing_ok=True)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    assert threading.current_thread() is threading.main_thread()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
