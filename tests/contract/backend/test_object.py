"""The contract of backends, on obstore's stores in memory and in a folder, and on a real S3 server."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from obstore.store import LocalStore, MemoryStore, S3Store

from trunkline.backend.plugins.object import ObjectBackend
from trunkline.backend.plugins.object.config import LEAST_PART_SIZE
from trunkline.memory.kind import MemoryKind
from trunkline.testing.backend import BackendContract, Link

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from trunkline.testing.s3 import S3Server

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


class TestS3(ObjectContract):
    LARGE = 16 << 20

    @pytest.fixture
    def store(self, s3: S3Server, bucket: str) -> S3Store:
        return S3Store(bucket, client_options={"allow_http": True, "timeout": "120s"}, **s3.options())

    @pytest.fixture
    def link(self, store: Any) -> Iterator[Link]:
        # Small parts, few at once, so that what is large here takes a while, too.
        backend = ObjectBackend("agent", store=store, part_size=LEAST_PART_SIZE, concurrency=2)
        yield Link(backend, backend, None, lambda data: ObjectMemory(store, data))
        backend.close()
