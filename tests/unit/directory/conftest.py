"""A directory on an in-memory store, a publisher of the agent ``a``, and what the store then holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from trunkline.directory import Directory
from trunkline.directory.sharing import close_all
from trunkline.metadata.presence import Presence, decode_presence
from trunkline.store import open_store
from trunkline.store.contract import Changed
from trunkline.testing.clock import FakeClock
from trunkline.testing.faulty_store import FaultyStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.directory import Publisher
    from trunkline.store.contract import Entry, Store

ONE, TWO = "1" * 32, "2" * 32


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


def keys(store: Store) -> dict[str, Entry]:
    return {entry.key.removeprefix("/prod/"): entry for entry in store.list("/prod/", timeout=1).entries}


def record(store: Store) -> Presence:
    return decode_presence(keys(store)[".presence/a"].value)


def changes(store: Store, after: int) -> list[tuple[set[str], set[str]]]:
    """Return what each revision put and deleted."""
    seen = []
    with store.watch("/prod/", prefix=True, after=after) as watch:
        while (event := watch.next(0)) is not None:
            assert isinstance(event, Changed)
            put = {entry.key.removeprefix("/prod/") for entry in event.put}
            seen.append((put, {key.removeprefix("/prod/") for key in event.deleted}))
    return seen
