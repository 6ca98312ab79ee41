"""Benchmark commands as processes of their own, in a group of the test's own."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import pytest
from tests.integration.cli.conftest import Commands

from trunkline.store.registry import open_store
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

SLOW = ("--rate", "40", "--num-iter", "20", "--warmup-iter", "0")
"""Each row takes half a second, so that there is time to disturb a run."""


class Bench:
    """Runs workers of one group."""

    def __init__(self, commands: Commands, endpoint: str) -> None:
        self.commands = commands
        self.endpoint = endpoint
        self.group = f"test-{uuid.uuid4().hex}"

    def worker(self, *arguments: object, endpoint: str | None = None) -> subprocess.Popen[str]:
        """Start a worker."""
        return self.commands.start(
            "bench", "--etcd-endpoints", endpoint or self.endpoint, "--benchmark-group", self.group,
            "--device-list", "lo", *arguments,
        )  # fmt: skip

    def keys(self) -> list[str]:
        """Return all keys that the group has in the store."""
        with open_store(self.endpoint) as store:
            entries = store.list("", keys_only=True, timeout=PATIENCE).entries
        return [entry.key for entry in entries if self.group in entry.key]


@pytest.fixture
def bench(etcd_endpoint: str) -> Iterator[Bench]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIXL_ETCD")}
    commands = Commands(environment | {"UCX_NET_DEVICES": "lo"})
    yield Bench(commands, etcd_endpoint)
    commands.close()
