"""The contract of stores, on every Redis and Valkey of this machine."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from trunkline.store import open_store
from trunkline.testing.redis import RedisServer, redis_binaries
from trunkline.testing.store import StoreContract
from trunkline.testing.store_comparison import Step, histories, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trunkline.store.contract import Store


@pytest.fixture(scope="module", params=redis_binaries(), ids=lambda path: path.name)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary: Path = request.param
    with RedisServer(tmp_path_factory.mktemp("redis"), binary=binary).start() as server:
        yield server.url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as store:
        yield store


@pytest.fixture
def other_store(url: str) -> Iterator[Store]:
    with open_store(url) as store:
        yield store


@pytest.fixture
def prefix() -> str:
    return f"/test/{uuid.uuid4().hex}/"


class TestRedisStore(StoreContract):
    pass


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories)
def test_redis_answers_as_the_memory_store_does(store: Store, steps: list[Step]) -> None:
    with open_store("memory://comparison") as model:
        assert run(store, f"/test/{uuid.uuid4().hex}/", steps) == run(model, "/test/", steps)
