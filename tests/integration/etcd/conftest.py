"""Clients of the shared etcd, and servers of every version on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from trunkline.etcd.client import EtcdClient
from trunkline.etcd.config import EtcdConfig
from trunkline.etcd.value import Change
from trunkline.testing.etcd import EtcdServer, etcd_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trunkline.etcd.watch import Watch


def connect(url: str, **settings: Any) -> EtcdClient:
    return EtcdClient(EtcdConfig.parse(url, environment={}, **settings))


def next_change(watch: Watch) -> Change:
    event = watch.next(30)
    assert isinstance(event, Change)
    return event


@pytest.fixture(scope="module", params=etcd_binaries(), ids=lambda path: path.parent.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    binary: Path = request.param
    with EtcdServer(tmp_path_factory.mktemp("etcd"), binary=binary).start() as running:
        yield running


@pytest.fixture
def client(server: EtcdServer) -> Iterator[EtcdClient]:
    with connect(server.endpoint) as connected:
        yield connected


@pytest.fixture
def prefix(namespace: str) -> bytes:
    return f"{namespace}/".encode()
