"""What the etcd store does by itself, without an etcd; its contract is tested with one."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, cast

import pytest

from trunkline.errors import ClosedError
from trunkline.etcd.config import EtcdConfig
from trunkline.etcd.lease import Lease
from trunkline.store.plugins.etcd import EtcdStore, open_store

if TYPE_CHECKING:
    from collections.abc import Callable


class Keeper:
    def __init__(self) -> None:
        self.removed: list[Lease] = []

    def remove(self, lease: Lease) -> bool:
        self.removed.append(lease)
        return True


class Client:
    """Answers a grant or a watch after the test has done something."""

    config = EtcdConfig(("127.0.0.1:1",))
    is_foreign = False

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None
        self.keeper = Keeper()
        self.watches: list[Watch] = []

    def grant(self, ttl: float, **_: Any) -> Lease:
        self.meanwhile()
        return Lease(1, ttl, 0, keeper=cast("Any", self.keeper), revoke=lambda *_: None, on_lost=None)

    def watch(self, *_: Any, **__: Any) -> Watch:
        self.meanwhile()
        self.watches.append(Watch())
        return self.watches[-1]


class Watch:
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def store(client: Client) -> EtcdStore:
    return EtcdStore(cast("Any", client))


def test_a_lease_granted_while_the_store_closes_is_let_go(client: Client, store: EtcdStore) -> None:
    client.meanwhile = store.close
    with pytest.raises(ClosedError):
        store.grant(60, timeout=1)
    assert [lease.id for lease in client.keeper.removed] == [1]


def test_a_watch_opened_while_the_store_closes_ends(client: Client, store: EtcdStore) -> None:
    client.meanwhile = store.close
    with pytest.raises(ClosedError):
        store.watch("k")
    assert client.watches[0].is_closed


def test_a_watch_nobody_refers_to_ends_with_its_store(client: Client, store: EtcdStore) -> None:
    store.watch("k")
    gc.collect()
    store.close()
    assert client.watches[0].is_closed


def test_it_is_opened_without_a_word_to_the_server_and_shows_no_secret() -> None:
    with open_store("etcd://127.0.0.1:1", username="eva", password="secret-word") as store:
        assert store.url == "etcd://127.0.0.1:1"
        assert "secret-word" not in repr(store)
        assert "closed" not in repr(store)
    assert "closed" in repr(store)
