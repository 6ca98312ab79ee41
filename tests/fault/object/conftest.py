from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from trunkline.testing.s3 import Proxy, S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")).start() as server:
        yield server


@pytest.fixture
def bucket(server: S3Server) -> str:
    name = f"bucket-{uuid.uuid4().hex}"
    server.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def proxy(server: S3Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy
