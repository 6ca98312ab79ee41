"""Transactions that failed for want of an answer, and reach the store after later ones: they change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from trunkline.directory.session import Session
from trunkline.errors import StoreUnavailableError
from trunkline.metadata.presence import decode_presence
from trunkline.store.contract import Delete, Transaction
from trunkline.testing.faulty_store import Fault, FaultyStore
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from trunkline.directory import Directory, Publisher
    from trunkline.store.contract import Store


@pytest.fixture
def session(directory: Directory) -> Publisher:
    return directory.open_publisher("a", incarnation="1" * 32)


def published(store: Store) -> dict[str, bytes]:
    """Return what lies under the agent's name, which must be what its record says."""
    entries = {entry.key: entry.value for entry in store.list("/prod/", timeout=1).entries}
    labels = decode_presence(entries["/prod/.presence/a"]).labels
    found = {key.removeprefix("/prod/a/"): value for key, value in entries.items() if key.startswith("/prod/a/")}
    found.pop("", None)
    assert found.keys() == labels.keys()
    assert all(labels[label].describes(value) for label, value in found.items())
    return found


def lose(store: FaultyStore, session: Publisher, metadata: bytes) -> Transaction:
    """Publish in vain, and return the transaction that was lost."""
    store.faults.append(Fault.LOST_REQUEST)
    with pytest.raises(StoreUnavailableError):
        session.publish(metadata)
    return store.transactions[-1]


@pytest.mark.parametrize("then", [b"1", b"3"])
def test_it_comes_after_the_next_publication(
    store: FaultyStore, session: Publisher, other_store: Store, then: bytes
) -> None:
    session.publish(b"1")
    late = lose(store, session, b"2")
    session.publish(then)
    assert not other_store.transact(late, timeout=1).succeeded
    assert published(store) == {"metadata": then}


def test_it_comes_after_a_withdrawal(store: FaultyStore, session: Publisher, other_store: Store) -> None:
    late = lose(store, session, b"2")
    session.withdraw()
    assert not other_store.transact(late, timeout=1).succeeded
    assert published(store) == {}


def test_it_comes_after_it_was_made_up_for(store: FaultyStore, session: Publisher, other_store: Store) -> None:
    late = lose(store, session, b"2")
    eventually(lambda: session.mend() is None)
    session.publish(b"3")
    assert not other_store.transact(late, timeout=1).succeeded
    assert published(store) == {"metadata": b"3"}


def test_it_comes_after_keys_that_somebody_deleted_were_put_again(
    store: FaultyStore, session: Publisher, other_store: Store
) -> None:
    session.publish(b"1")
    late = lose(store, session, b"2")
    other_store.transact(Transaction((), (Delete("/prod/a/metadata"),)), timeout=1)
    eventually(lambda: store.get("/prod/a/metadata", timeout=1)[0] is not None)
    session.publish(b"1")
    assert not other_store.transact(late, timeout=1).succeeded
    assert published(store) == {"metadata": b"1"}


@pytest.mark.parametrize("then", [b"1", b"3"])
def test_it_comes_between_the_look_and_the_next_publication(
    store: FaultyStore, session: Publisher, other_store: Store, monkeypatch: pytest.MonkeyPatch, then: bytes
) -> None:
    session.publish(b"1")
    late = [lose(store, session, b"2")]
    reload = Session._reload

    def reload_and_arrive(*arguments: Any) -> None:
        reload(*arguments)
        if late:
            assert other_store.transact(late.pop(), timeout=1).succeeded

    monkeypatch.setattr(Session, "_reload", reload_and_arrive)
    session.publish(then)
    assert published(store) == {"metadata": then}
