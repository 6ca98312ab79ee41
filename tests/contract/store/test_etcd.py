"""The contract of stores, on every etcd of this machine."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from trunkline.errors import RevisionUnavailableError
from trunkline.etcd.client import EtcdClient
from trunkline.etcd.config import EtcdConfig
from trunkline.store import open_store
from trunkline.store.contract import Get
from trunkline.testing.etcd import EtcdServer, etcd_binaries
from trunkline.testing.store import StoreContract
from trunkline.testing.store_comparison import Step, histories, run
from trunkline.testing.store_liveness import WAIT, put, transact

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trunkline.store.contract import Store


@pytest.fixture(scope="module", params=etcd_binaries(), ids=lambda path: path.parent.name)
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary: Path = request.param
    with EtcdServer(tmp_path_factory.mktemp("etcd"), binary=binary).start() as server:
        yield server.endpoint


@pytest.fixture
def store(endpoint: str) -> Iterator[Store]:
    with open_store(endpoint) as store:
        yield store


@pytest.fixture
def other_store(endpoint: str) -> Iterator[Store]:
    """A client of its own: equal settings would share one."""
    with open_store(endpoint.replace("127.0.0.1", "localhost")) as store:
        yield store


@pytest.fixture
def prefix() -> str:
    return f"/test/{uuid.uuid4().hex}/"


class TestEtcdStore(StoreContract):
    pass


def test_history_is_kept_until_it_is_compacted(store: Store, endpoint: str, prefix: str) -> None:
    first = put(store, prefix + "a", b"1")
    last = put(store, prefix + "a", b"2")
    then = Get(prefix + "a", revision=first)
    assert [entry.value for entry in transact(store, then).reads[0]] == [b"1"]
    with EtcdClient(EtcdConfig.parse(endpoint, environment={})) as client:
        client.compact(last, timeout=WAIT)
    with pytest.raises(RevisionUnavailableError, match="read again"):
        transact(store, then)
    assert [entry.value for entry in transact(store, Get(prefix + "a", revision=last)).reads[0]] == [b"2"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories)
def test_etcd_answers_as_the_memory_store_does(store: Store, steps: list[Step]) -> None:
    with open_store("memory://comparison") as model:
        assert run(store, f"/test/{uuid.uuid4().hex}/", steps) == run(model, "/test/", steps)
