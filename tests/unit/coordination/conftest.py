"""A memory store of the test's own, on a clock that the test moves."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.workers import Workers

from trunkline.store.plugins.memory import open_store as open_memory
from trunkline.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trunkline.store.contract import Store


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def open_store(clock: FakeClock) -> Callable[[], Store]:
    return partial(open_memory, f"memory://{uuid.uuid4().hex}", clock=clock)


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Iterator[Store]:
    """A handle that no worker has."""
    with open_store() as store:
        yield store


@pytest.fixture
def workers(open_store: Callable[[], Store], store: Store, clock: FakeClock) -> Workers:
    return Workers(open_store, clock=clock)
