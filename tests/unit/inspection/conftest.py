from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.directory import Directory
from trunkline.directory.sharing import close_all
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.codec import encode
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata
from trunkline.store import open_store
from trunkline.store.contract import Put, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trunkline.store.contract import Store

NAMESPACE = "/prod"
BASE = 0x7F00_0000_0000


def blob(agent: str, *lengths: int, kind: MemoryKind = MemoryKind.DRAM, backend: str = "UCX") -> bytes:
    """Return metadata of an agent with regions of these lengths."""
    rows = [[BASE + 0x1000_0000 * number, length, 0] for number, length in enumerate(lengths)]
    keys = RemoteKeys.of([b"remote key"] * len(rows))
    sections = (SectionMetadata(backend, kind, np.array(rows, np.uint64), keys),) if rows else ()
    return encode(AgentMetadata(agent, {backend: b"address"}, sections))


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store("memory://inspection") as store:
        yield store
    close_all()


@pytest.fixture
def directory(store: Store) -> Directory:
    return Directory(store, namespace=NAMESPACE)


@pytest.fixture
def put(store: Store) -> Callable[..., int]:
    """Put one key and return the revision."""

    def write(key: str, value: bytes = b"", *, lease: int = 0) -> int:
        return store.transact(Transaction((), (Put(key, value, lease),)), timeout=5).revision

    return write
