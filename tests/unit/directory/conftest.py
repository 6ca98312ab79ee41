"""A directory on an in-memory store, publishers, contents of any size, and what the store then holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.directory import Directory
from trunkline.directory.chunks import CHUNK_SIZE
from trunkline.directory.sharing import close_all
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.codec import encode
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata
from trunkline.metadata.presence import Presence, decode_presence
from trunkline.store import open_store
from trunkline.store.contract import Changed
from trunkline.testing.clock import FakeClock
from trunkline.testing.faulty_store import FaultyStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.directory import Publisher
    from trunkline.directory.publication import Publication
    from trunkline.metadata.presence import ChunksRecord
    from trunkline.store.contract import Entry, Store

ONE, TWO = "1" * 32, "2" * 32


def metadata(regions: int, first: int = 0) -> bytes:
    """Return NIXL's bytes of an agent with so many regions, 49 bytes each."""
    address = 4096 * np.arange(first, first + regions, dtype=np.uint64)
    rows = np.stack([address, np.full_like(address, 4096), np.zeros_like(address)], 1)
    every = np.arange(regions, dtype=np.int64)
    keys = RemoteKeys(b"0123456789abcdef", 0 * every, 0 * every + 16)
    return encode(AgentMetadata("a", {"UCX": b"address"}, (SectionMetadata("UCX", MemoryKind.DRAM, rows, keys),)))


LARGE, OTHER = metadata(40_000), metadata(40_000, first=7)
COUNT = -(-len(LARGE) // CHUNK_SIZE)
SMALL = metadata(3)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Iterator[FaultyStore]:
    with FaultyStore(open_store("memory://directory", clock=clock)) as store:
        yield store


@pytest.fixture
def other_store(clock: FakeClock) -> Iterator[Store]:
    """Another process's connection: closing it is that process's death."""
    with open_store("memory://directory", clock=clock) as store:
        yield store


@pytest.fixture(autouse=True)
def no_observer_stays() -> Iterator[None]:
    """Publishers that a test leaves open must not reach into the next one."""
    yield
    close_all()


@pytest.fixture
def directory(store: FaultyStore, clock: FakeClock) -> Directory:
    return Directory(store, namespace="/prod", clock=clock)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


@pytest.fixture
def session(directory: Directory) -> Publisher:
    return directory.open_publisher("a", incarnation=ONE)


@pytest.fixture
def publisher(other_store: Store, clock: FakeClock) -> Publisher:
    """One in another process, so that the reader's transactions are told apart from its."""
    return Directory(other_store, namespace="/prod", clock=clock).open_publisher("a", incarnation=ONE)


def keys(store: Store) -> dict[str, Entry]:
    return {entry.key.removeprefix("/prod/"): entry for entry in store.list("/prod/", timeout=1).entries}


def record(store: Store) -> Presence:
    return decode_presence(keys(store)[".presence/a"].value)


def chunks(store: Store) -> list[Entry]:
    return list(store.list("/prod/.chunks/", timeout=1).entries)


def place(store: Store) -> ChunksRecord:
    """Return where the full metadata lies."""
    found = record(store).labels["metadata"].chunks
    assert found is not None
    return found


def changes(store: Store, after: int) -> list[tuple[set[str], set[str]]]:
    """Return what each revision put and deleted, without the numbers of chunks."""
    seen = []
    with store.watch("/prod/", prefix=True, after=after) as watch:
        while (event := watch.next(0)) is not None:
            assert isinstance(event, Changed)
            put = {_short(entry.key) for entry in event.put}
            seen.append((put, {_short(key) for key in event.deleted}))
    return seen


def _short(key: str) -> str:
    return ".chunks" if key.startswith("/prod/.chunks/a/") else key.removeprefix("/prod/")


def same(publication: Publication, content: bytes, catalog: bytes | None = None) -> bool:
    """Return whether it is that; without the bytes in the report of a failure."""
    return publication.metadata == content and publication.catalog == catalog
