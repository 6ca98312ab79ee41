"""The contract of stores, on a real etcd."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from trunkline.store import open_store
from trunkline.testing.store import StoreContract
from trunkline.testing.store_comparison import Step, histories, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.store.contract import Store


@pytest.fixture
def store(etcd_endpoint: str) -> Iterator[Store]:
    with open_store(etcd_endpoint) as store:
        yield store


@pytest.fixture
def other_store(etcd_endpoint: str) -> Iterator[Store]:
    with open_store(etcd_endpoint) as store:
        yield store


@pytest.fixture
def prefix(namespace: str) -> str:
    return f"{namespace}/"


class TestEtcdStore(StoreContract):
    pass


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories)
def test_etcd_answers_as_the_memory_store_does(store: Store, steps: list[Step]) -> None:
    with open_store("memory://comparison") as model:
        assert run(store, f"/test/{uuid.uuid4().hex}/", steps) == run(model, "/test/", steps)
