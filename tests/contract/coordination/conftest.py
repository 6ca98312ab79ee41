"""Workers of a group of the test's own, on the store that a test class has as ``open_store``."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from tests.workers import PATIENCE, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trunkline.store.contract import Store


@pytest.fixture
def watcher(open_store: Callable[[], Store]) -> Iterator[Store]:
    """A handle that no worker has."""
    with open_store() as store:
        yield store


@pytest.fixture
def workers(open_store: Callable[[], Store], watcher: Store) -> Iterator[Workers]:
    """Workers of a group of the test's own; whatever happens, no key of theirs is left."""
    workers = Workers(open_store, uuid.uuid4().hex, ttl=3)
    yield workers
    assert keys(watcher, workers.name) == []


def keys(store: Store, name: str, part: str = "") -> list[str]:
    """Return the keys of a group."""
    listing = store.list(f"/trunkline/groups/{name}/", keys_only=True, timeout=PATIENCE)
    return [entry.key for entry in listing.entries if part in entry.key]


def until_gone(store: Store, name: str, part: str) -> None:
    """Wait until no key of a group has this part."""
    _until(store, name, lambda: not keys(store, name, part))


def until_there(store: Store, name: str, part: str) -> None:
    """Wait until a key of a group has this part."""
    _until(store, name, lambda: bool(keys(store, name, part)))


def _until(store: Store, name: str, condition: Callable[[], bool]) -> None:
    with store.watch(f"/trunkline/groups/{name}/", prefix=True) as watch:
        while not condition():
            assert watch.next(PATIENCE) is not None
