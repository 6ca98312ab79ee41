"""The contract of backends, on obstore's stores in memory and in a folder, and on a real S3 server."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from obstore.store import LocalStore, MemoryStore, S3Store

from trunkline.backend.plugins.object import ObjectBackend
from trunkline.memory.kind import MemoryKind
from trunkline.testing.backend import BackendContract, Link
from trunkline.testing.s3 import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_numbers = itertools.count()


class ObjectMemory:
    """An object as the far side."""

    kind = MemoryKind.OBJECT
    address = 0

    def __init__(self, store: Any, data: NDArray[np.uint8]) -> None:
        self._store = store
        self.device = next(_numbers)
        self.name = f"far/object-{self.device}"
        self.nbytes = data.nbytes
        self.write(data)

    def read(self) -> NDArray[np.uint8]:
        return np.frombuffer(bytes(self._store.get(self.name).bytes()), np.uint8)

    def write(self, data: NDArray[np.uint8]) -> None:
        self._store.put(self.name, data.tobytes())


class ObjectContract(BackendContract):
    partial_writes = False

    @pytest.fixture
    def store(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def link(self, store: Any) -> Iterator[Link]:
        backend = ObjectBackend("agent", store=store)
        yield Link(backend, backend, None, lambda data: ObjectMemory(store, data))
        backend.close()


class TestMemoryStore(ObjectContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestLocalStore(ObjectContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")).start() as server:
        server.client().create_bucket(Bucket="contract")
        yield server


class TestS3(ObjectContract):
    @pytest.fixture
    def store(self, server: S3Server) -> S3Store:
        return S3Store("contract", client_options={"allow_http": True, "timeout": "120s"}, **server.options())
