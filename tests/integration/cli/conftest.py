"""Commands as processes of their own, on a namespace of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 120.0
"""Seconds after which a command is taken to hang."""


class Commands:
    """Runs ``trunkline`` commands on one store and namespace."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self._running: list[subprocess.Popen[str]] = []

    def run(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self._command(arguments),
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=TIMEOUT,
            check=False,
            **options,
        )

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        """Start a command; it is killed at the end of the test."""
        process = subprocess.Popen(
            self._command(arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            **options,
        )
        self._running.append(process)
        return process

    def offer(self, path: object, name: str, *arguments: object) -> subprocess.Popen[str]:
        """Start an offer and return once it was published."""
        process = self.start("offer", path, "--name", name, "--devices", "lo", *arguments)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("trunkline take "), process.communicate()[1]
        return process

    def take(self, name: str, path: object, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a take to its end."""
        return self.run("take", name, "-o", path, "--devices", "lo", *arguments)

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()

    @staticmethod
    def _command(arguments: tuple[object, ...]) -> list[str]:
        return [sys.executable, "-m", "trunkline", *map(str, arguments)]


@pytest.fixture
def commands(etcd_endpoint: str, namespace: str) -> Iterator[Commands]:
    found = Commands({**os.environ, "NIXL_ETCD_ENDPOINTS": etcd_endpoint, "NIXL_ETCD_NAMESPACE": namespace})
    yield found
    found.close()
