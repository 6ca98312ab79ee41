"""An etcd of each version for a module, and workers in processes that are started for each test."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from tests.fault.coordination.crew import Crew

from trunkline.testing.etcd import EtcdServer, etcd_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=etcd_binaries(), ids=lambda path: path.parent.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    binary: Path = request.param
    with EtcdServer(tmp_path_factory.mktemp("etcd"), binary=binary).start() as running:
        yield running


@pytest.fixture
def crew(server: EtcdServer) -> Iterator[Crew]:
    with Crew(server, uuid.uuid4().hex) as crew:
        yield crew
