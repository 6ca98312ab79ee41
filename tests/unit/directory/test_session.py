from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from trunkline.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineError,
    SessionLostError,
    StoreLimitError,
    StoreUnavailableError,
    SupersededError,
)
from trunkline.metadata.presence import Presence, content_record, decode_presence
from trunkline.store.contract import Changed, Delete, Put, Transaction
from trunkline.testing.faulty_store import Fault, FaultyStore

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from trunkline.directory import Directory, Session
    from trunkline.store.contract import Entry, Store, TransactionResult

ONE, TWO = "1" * 32, "2" * 32


@pytest.fixture
def session(directory: Directory) -> Session:
    return directory.open_session("a", incarnation=ONE)


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


def test_opening_puts_marker_and_record_on_one_lease_at_one_revision(store: FaultyStore, session: Session) -> None:
    entries = keys(store)
    assert set(entries) == {"a/", ".presence/a"}
    assert {entry.lease for entry in entries.values()} == {store.leases[0].id}
    assert len({entry.mod_revision for entry in entries.values()}) == 1
    assert entries["a/"].value == b""
    assert (session.name, session.incarnation, session.ttl, session.lost) == ("a", ONE, 30, None)


def test_the_record_says_who_the_agent_is(store: FaultyStore, directory: Directory) -> None:
    directory.open_session("a", incarnation=ONE, attributes={"role": "prefill"}, backends=["UCX"])
    presence = record(store)
    assert presence.incarnation == ONE
    assert presence.attributes == {"role": "prefill"}
    assert presence.backends == ("UCX",)
    assert presence.software.startswith("trunkline")
    assert presence.process.pid > 0
    assert presence.labels == {}


@pytest.mark.parametrize(
    "bad",
    [
        {"ttl": 1.9},
        {"ttl": float("nan")},
        {"ttl": float("inf")},
        {"ttl": -1},
        {"incarnation": "abc"},
        {"attributes": {"": "x"}},
        {"name": ".a"},
        {"name": "a/b"},
    ],
)
def test_what_can_t_be_opened_leaves_nothing(store: FaultyStore, directory: Directory, bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        directory.open_session(**{"name": "a", "incarnation": ONE, **bad})
    assert keys(store) == {}
    assert store.leases == []


def test_publishing_is_one_transaction(store: FaultyStore, session: Session) -> None:
    before = len(store.transactions)
    revision = session.publish(b"metadata", catalog=b"catalog")
    assert len(store.transactions) == before + 1
    entries = keys(store)
    assert {key: entry.value for key, entry in entries.items() if key != ".presence/a"} == {
        "a/": b"",
        "a/metadata": b"metadata",
        ".catalog/a": b"catalog",
    }
    written = {key for key, entry in entries.items() if entry.mod_revision == revision}
    assert written == {"a/metadata", ".catalog/a", ".presence/a"}
    assert {entry.lease for entry in entries.values()} == {store.leases[0].id}
    presence = record(store)
    assert presence.labels["metadata"].describes(b"metadata")
    assert presence.labels["metadata"].generation == 1
    assert presence.catalog == content_record(b"catalog")


def test_publishing_again_replaces_and_leaves_the_marker_alone(store: FaultyStore, session: Session) -> None:
    first = session.publish(b"1", catalog=b"c")
    session.publish(b"2")
    assert changes(store, first) == [({"a/metadata", ".presence/a"}, {".catalog/a"})]
    assert keys(store)["a/metadata"].value == b"2"
    assert record(store).labels["metadata"].generation == 2
    assert record(store).catalog is None


def test_other_labels_stand_beside_the_full_metadata(store: FaultyStore, session: Session) -> None:
    session.publish(b"full", catalog=b"c")
    session.publish(b"part", label="part")
    assert keys(store).keys() == {"a/", "a/metadata", "a/part", ".presence/a", ".catalog/a"}
    assert [label.generation for label in record(store).labels.values()] == [1, 2]
    with pytest.raises(ConfigurationError, match="catalog"):
        session.publish(b"part", catalog=b"c", label="part")
    with pytest.raises(ConfigurationError, match="slash"):
        session.publish(b"part", label="a/b")


def test_there_is_an_end_to_labels(store: FaultyStore, session: Session) -> None:
    for number in range(64):
        session.publish(b"", label=f"label-{number}")
    session.publish(b"again", label="label-7")
    with pytest.raises(ConfigurationError, match="64"):
        session.publish(b"", label="one-more")
    session.withdraw()
    assert keys(store).keys() == {".presence/a"}


def test_withdrawing_deletes_all_but_the_record_and_the_marker_comes_back_later(
    store: FaultyStore, session: Session
) -> None:
    start = session.publish(b"1", catalog=b"c")
    session.publish(b"part", label="part")
    session.withdraw()
    session.withdraw()
    session.publish(b"2")
    session.publish(b"3")
    assert changes(store, start)[1:] == [
        ({".presence/a"}, {"a/", "a/metadata", "a/part", ".catalog/a"}),
        ({".presence/a"}, set()),
        ({"a/", "a/metadata", ".presence/a"}, set()),
        ({"a/metadata", ".presence/a"}, set()),
    ]
    assert session.lost is None


def test_withdrawing_one_label_leaves_the_others(store: FaultyStore, session: Session) -> None:
    session.publish(b"full", catalog=b"c")
    session.publish(b"part", label="part")
    session.withdraw(label="part")
    assert keys(store).keys() == {"a/", "a/metadata", ".presence/a", ".catalog/a"}
    session.publish(b"part", label="part")
    session.withdraw(label="metadata")
    assert keys(store).keys() == {"a/", "a/part", ".presence/a"}
    assert record(store).labels.keys() == {"part"}
    assert record(store).catalog is None
    session.withdraw(label="part")
    assert keys(store).keys() == {".presence/a"}


def test_a_publication_that_is_too_large_says_what_is(store: FaultyStore, session: Session) -> None:
    before = len(store.transactions)
    with pytest.raises(StoreLimitError, match=r"a/metadata 1000000 bytes, .*catalog/a 500000 bytes") as caught:
        session.publish(bytes(1_000_000), catalog=bytes(500_000))
    assert caught.value.context["size"] > 1_500_000
    assert len(store.transactions) == before
    session.publish(bytes(1_000_000), catalog=bytes(400_000))


def test_a_lost_lease_is_told_and_publishing_says_so(store: FaultyStore, session: Session, other_store: Store) -> None:
    assert other_store.revoke(store.leases[0].id, timeout=1)
    with pytest.raises(SessionLostError, match=r"/prod/\.presence/a"):
        session.publish(b"1")
    with pytest.raises(SessionLostError):
        session.withdraw()
    assert session.lost is not None
    assert keys(store) == {}


def test_the_store_tells_of_a_lost_lease_without_being_asked(directory: Directory, store: FaultyStore) -> None:
    session = directory.open_session("a", incarnation=ONE, ttl=7)
    store.revoke(store.leases[0].id, timeout=1)
    for _ in range(3000):  # its thread does
        if session.lost is not None:
            break
        time.sleep(0.01)
    assert session.lost is not None
    assert "7 s" in session.lost


def test_a_deleted_record_is_a_lost_session(store: FaultyStore, session: Session, other_store: Store) -> None:
    other_store.transact(Transaction((), (Delete("/prod/.presence/", prefix=True),)), timeout=1)
    with pytest.raises(SessionLostError):
        session.publish(b"1")
    assert "a/metadata" not in keys(store)


def test_a_replaced_session_is_superseded(directory: Directory, store: FaultyStore, session: Session) -> None:
    session.publish(b"1")
    with directory.open_session("a", incarnation=TWO, takeover=True) as successor:
        successor.publish(b"2")
        with pytest.raises(SupersededError, match="took the name over"):
            session.publish(b"1")
        with pytest.raises(SupersededError):
            session.withdraw()
        session.close()
        assert keys(store)["a/metadata"].value == b"2"


def test_after_a_lost_answer_the_truth_is_looked_up(store: FaultyStore, session: Session) -> None:
    store.faults.append(Fault.LOST_ANSWER)
    with pytest.raises(StoreUnavailableError):
        session.publish(b"1", catalog=b"c")
    assert keys(store)["a/metadata"].value == b"1"
    session.publish(b"part", label="part")
    presence = record(store)
    assert presence.labels["metadata"].generation < presence.labels["part"].generation
    assert presence.catalog == content_record(b"c")


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.LOST_REQUEST])
def test_the_marker_is_put_only_after_it_was_deleted(store: FaultyStore, session: Session, fault: Fault) -> None:
    start = session.publish(b"1")
    store.faults.append(fault)
    with pytest.raises(StoreUnavailableError):
        session.withdraw()
    session.publish(b"2")
    session.publish(b"3")
    puts_and_deletes = [("a/" in put, "a/" in deleted) for put, deleted in changes(store, start)]
    happened = [(False, True), (True, False)] if fault is Fault.LOST_ANSWER else [(False, False)]
    assert puts_and_deletes == [*happened, (False, False)]


def test_a_marker_that_was_sent_twice_is_put_once(store: FaultyStore, session: Session) -> None:
    session.publish(b"1")
    start = session.withdraw()
    store.faults.append(Fault.REPEATED)
    revision = session.publish(b"2")
    assert [("a/" in put, "a/" in deleted) for put, deleted in changes(store, start)] == [(True, False)]
    assert keys(store)["a/metadata"].mod_revision == revision
    assert session.lost is None


def test_a_marker_that_somebody_else_put_is_left_alone(
    store: FaultyStore, session: Session, other_store: Store
) -> None:
    session.publish(b"1")
    session.withdraw()
    start = other_store.transact(Transaction((), (Put("/prod/a/", b""),)), timeout=1).revision
    session.publish(b"2")
    assert changes(store, start) == [({"a/metadata", ".presence/a"}, set())]
    session.withdraw()
    assert "a/" not in keys(store)


def test_a_publication_sent_twice_counts_once(store: FaultyStore, session: Session) -> None:
    store.faults.append(Fault.REPEATED)
    session.publish(b"1")
    assert record(store).labels["metadata"].generation == 1


def test_closing_gives_the_name_up(store: FaultyStore, session: Session) -> None:
    session.publish(b"1", catalog=b"c")
    session.close()
    session.close()
    assert keys(store) == {}
    with pytest.raises(ClosedError):
        session.publish(b"1")
    with pytest.raises(ClosedError):
        session.withdraw()
    assert session.lost is None
    assert "closed" in repr(session)


def test_many_threads_publish_one_after_the_other(
    store: FaultyStore, session: Session, threads: ThreadPoolExecutor
) -> None:
    revisions = list(threads.map(lambda number: session.publish(b"", label=f"label-{number}"), range(16)))
    assert len(set(revisions)) == 16
    assert sorted(label.generation for label in record(store).labels.values()) == list(range(1, 17))


def test_waiting_for_another_publication_has_an_end(
    store: FaultyStore, session: Session, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    transact = store.transact

    def slow(transaction: Transaction, *, timeout: float | None) -> TransactionResult:
        entered.set()
        assert go_on.wait(30)
        return transact(transaction, timeout=timeout)

    monkeypatch.setattr(store, "transact", slow)
    first = threads.submit(session.publish, b"1")
    assert entered.wait(30)
    with pytest.raises(DeadlineError, match="'a'"):
        session.publish(b"2", timeout=0)
    go_on.set()
    first.result(30)
