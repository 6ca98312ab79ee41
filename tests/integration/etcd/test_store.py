"""The etcd store keeps the contract, and shares its client."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from trunkline.errors import ClosedError
from trunkline.store.contract import Changed, Delete, Entry, Get, KeyHasLease, KeyIsAbsent, Put, Snapshot, Transaction
from trunkline.store.plugins.etcd import EtcdStore, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store(etcd_endpoint: str) -> Iterator[EtcdStore]:
    opened = open_store(etcd_endpoint)
    yield opened
    opened.close()


def count_threads() -> int:
    return sum(thread.name.startswith("trunkline-etcd") for thread in threading.enumerate())


def test_claim_read_watch_and_revoke(store: EtcdStore, namespace: str) -> None:
    with store.watch(f"{namespace}/", prefix=True) as watch:
        snapshot = watch.next(30)
        assert snapshot == Snapshot((), snapshot.revision)  # type: ignore[union-attr]
        lease = store.grant(20, timeout=10)
        claim = Transaction((KeyIsAbsent(f"{namespace}/k"),), (Put(f"{namespace}/k", b"v", lease.id),))
        result = store.transact(claim, timeout=10)
        assert result.succeeded
        entry = Entry(f"{namespace}/k", b"v", result.revision, result.revision, lease.id)
        assert watch.next(30) == Changed((entry,), (), result.revision)
        assert store.get(f"{namespace}/k", timeout=10) == (entry, result.revision)
        guarded = Transaction((KeyHasLease(entry.key, lease.id),), (Get(f"{namespace}/", prefix=True),))
        assert store.transact(guarded, timeout=10).reads == ((entry,),)
        lease.close()
        event = watch.next(30)
        assert isinstance(event, Changed)
        assert event.deleted == (entry.key,)


def test_keys_that_are_not_utf8_survive(store: EtcdStore, namespace: str) -> None:
    key = f"{namespace}/\udcff"
    store.transact(Transaction((), (Put(key, b""),)), timeout=10)
    assert [entry.key for entry in store.list(f"{namespace}/", timeout=10).entries] == [key]


def test_the_empty_prefix_is_every_key(store: EtcdStore, namespace: str) -> None:
    store.transact(Transaction((), (Put(f"{namespace}/k", b""),)), timeout=10)
    assert f"{namespace}/k" in {entry.key for entry in store.list("", keys_only=True, timeout=10).entries}


def test_stores_of_a_process_share_threads_and_the_last_ends_them(etcd_endpoint: str, namespace: str) -> None:
    before = count_threads()
    stores = [open_store(etcd_endpoint) for _ in range(3)]
    for each in stores:
        each.grant(20, timeout=10)
        assert each.watch(namespace).next(30) is not None
    assert count_threads() == before + 2
    stores[0].close()
    stores[0].close()
    assert stores[1].get(namespace, timeout=10)[0] is None
    stores[1].close()
    stores[2].close()
    assert count_threads() == before


def test_a_closed_store_leaves_its_keys_to_their_ttl(etcd_endpoint: str, store: EtcdStore, namespace: str) -> None:
    first = open_store(etcd_endpoint)
    lease = first.grant(20, timeout=10)
    first.transact(Transaction((), (Put(namespace, b"", lease.id),)), timeout=10)
    watch = first.watch(namespace)
    first.close()
    assert store.get(namespace, timeout=10)[0] is not None
    for use in (lambda: first.get(namespace, timeout=1), lambda: first.watch(namespace), lambda: watch.next(1)):
        with pytest.raises(ClosedError):
            use()
    store.revoke(lease.id, timeout=10)


def test_deleting_a_prefix(store: EtcdStore, namespace: str) -> None:
    store.transact(Transaction((), tuple(Put(f"{namespace}/{name}", b"") for name in "abc")), timeout=10)
    with store.watch(f"{namespace}/", prefix=True) as watch:
        watch.next(30)
        store.transact(Transaction((), (Delete(f"{namespace}/", prefix=True),)), timeout=10)
        event = watch.next(30)
        assert isinstance(event, Changed)
        assert sorted(event.deleted) == [f"{namespace}/{name}" for name in "abc"]


def test_the_url_names_the_endpoints_only(etcd_endpoint: str) -> None:
    with open_store(etcd_endpoint, username="eva", password="secret") as store:
        assert store.url == etcd_endpoint.replace("http://", "etcd://")
        assert "secret" not in repr(store)
