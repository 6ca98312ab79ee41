"""An etcd to break for each module and version, and a fleet on it for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.fault.directory.fleet import Fleet, wipe
from tests.fault.versions import every_etcd

from trunkline.testing.etcd import EtcdServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=every_etcd())
def shared_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """An etcd of each version, for the tests of a module one after the other."""
    binary: Path = request.param
    with EtcdServer(tmp_path_factory.mktemp("etcd"), binary=binary).start() as running:
        yield running


@pytest.fixture
def server(shared_server: EtcdServer) -> EtcdServer:
    """The module's etcd, running, whatever the test before did to it."""
    if not shared_server.is_healthy():
        wipe(shared_server)
    return shared_server


@pytest.fixture
def fleet(server: EtcdServer) -> Iterator[Fleet]:
    with Fleet(server.endpoint) as fleet:
        yield fleet
