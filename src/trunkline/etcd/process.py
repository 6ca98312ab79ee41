"""A server in a process of its own on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, ClassVar, Self

from trunkline.errors import ConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from trunkline.etcd.keeper import Keeper

_PROBE_INTERVAL = 0.05
_STOP_TIMEOUT = 10.0


class ServerProcess:
    """A server on loopback, with its own data and log in one directory.

    Subclasses say what to run. Not for several threads at once. ``close`` ends the process, also a paused one, and
    keeps the directory.

    Args:
        directory: Where its log goes, named after the server; it is created.
        port: The port it serves on.

    Attributes:
        name: What the server is called.
        scheme: That of its endpoint's URL.
    """

    name: ClassVar[str]
    scheme = "http"

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The URL for clients."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id; 0 if none was started."""
        return self._process.pid if self._process else 0

    def command(self) -> list[str]:
        """Return the program and its arguments."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the process's environment; by default ours."""
        return dict(os.environ)

    def start(self, timeout: float | None = 30.0, *, keeper: Keeper | None = None) -> Self:
        """Start the process and wait until it serves.

        Args:
            timeout: How many seconds; 0 not to wait.
            keeper: Ends the process if this one is killed.

        Raises:
            ConfigurationError: The program can't be run, or the directory not be written.
            StoreUnavailableError: It ended, or does not serve after ``timeout`` seconds; quotes its log.
        """
        command = self.command()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self.environment(),
                    start_new_session=True,  # a Ctrl-C at the terminal is for us, and we end it in order
                )
        except OSError as error:
            raise ConfigurationError(
                f"{self.name} ({command[0]}) can't be started in {self.directory}: {error}"
            ) from error
        if keeper is not None:
            keeper.watch(self.pid)
        if timeout != 0:
            self.wait_ready(timeout)
        return self

    def wait_ready(self, timeout: float | None = 30.0) -> None:
        """Wait until it serves; raises as :meth:`start`, and then the process has ended."""
        began = time.monotonic()
        try:
            while not self.is_healthy():
                elapsed = time.monotonic() - began
                status = self._process.poll() if self._process else None
                if status is not None or (timeout is not None and elapsed >= timeout):
                    what = f"ended with status {status}" if status is not None else "does not serve"
                    raise StoreUnavailableError(
                        f"{self.name} ({self.command()[0]}) at {self.endpoint} {what} after {elapsed:.1f} s; "
                        f"its log ends: {self._log_tail()}",
                        endpoint=self.endpoint,
                        elapsed=elapsed,
                    )
                time.sleep(_PROBE_INTERVAL)
        except BaseException:  # a Ctrl-C too: nobody else knows of the process
            self.close()
            raise

    def is_healthy(self) -> bool:
        """Return whether it serves now; by default whether it takes connections."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def wait(self) -> int:
        """Wait until the process ends and return its status."""
        assert self._process is not None
        return self._process.wait()

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Stop it from running (SIGSTOP): its connections stay open and nothing answers."""
        assert self._process is not None
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)  # until all its threads stand

    def resume(self) -> None:
        """Let a paused one run on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it in order (SIGTERM), by force after 10 s. Idempotent."""
        if self._process is None or self._process.poll() is not None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.endpoint} pid={self.pid}>"

    @property
    def _log_path(self) -> Path:
        return self.directory / f"{self.name}.log"

    def _log_tail(self) -> str:
        lines = self._log_path.read_text("utf-8", "replace").splitlines()
        return " | ".join(lines[-3:]) or "(empty)"
