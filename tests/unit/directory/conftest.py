from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from trunkline.directory import Directory
from trunkline.directory.sharing import close_all
from trunkline.store import open_store
from trunkline.testing.clock import FakeClock
from trunkline.testing.faulty_store import FaultyStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.store.contract import Store


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
