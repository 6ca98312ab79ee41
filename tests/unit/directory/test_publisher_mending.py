"""What a publisher does when things go wrong: lost leases and answers, keys that others touch, a name that is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.directory.conftest import ONE, TWO, changes, keys, record

from trunkline.directory.chunks import MAX_CONTENT_SIZE
from trunkline.directory.event import NameConflict
from trunkline.directory.session import Session
from trunkline.errors import ConfigurationError, StoreAuthError, StoreLimitError, StoreUnavailableError, SupersededError
from trunkline.metadata.presence import Presence, content_record, decode_presence, encode_presence
from trunkline.store.contract import Delete, Put, Transaction
from trunkline.testing.faulty_store import Fault, FaultyStore
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from trunkline.directory import Directory, DirectoryWatch, Publisher
    from trunkline.store.contract import Store
    from trunkline.testing.clock import FakeClock


def test_what_the_store_holds_is_known_until_that_is_in_doubt(store: FaultyStore, session: Publisher) -> None:
    def holds(metadata: bytes, catalog: bytes | None = b"c", label: str = "metadata") -> bool:
        return session.holds(metadata, catalog=catalog, label=label)

    assert not holds(b"1")
    session.publish(b"1", catalog=b"c")
    assert [holds(b"1"), holds(b"2"), holds(b"1", None), holds(b"1", label="kv")] == [True, False, False, False]
    for fault in (Fault.LOST_ANSWER, Fault.LOST_REQUEST):
        store.faults.append(fault)
        with pytest.raises(StoreUnavailableError):
            session.publish(b"2", catalog=b"c")
        assert [holds(b"1"), holds(b"2")] == [False, False]
        eventually(lambda: session.mend() is None)
        assert [holds(b"1"), holds(b"2")] == [False, True]
        session.publish(b"1", catalog=b"c")
    session.withdraw()
    assert not holds(b"1")


def conflicts(watch: DirectoryWatch) -> NameConflict:
    """Return the next conflict a watch tells of."""
    found: list[NameConflict] = []

    def look() -> bool:
        event = watch.next(0)
        if isinstance(event, NameConflict):
            found.append(event)
        return bool(found)

    eventually(look)
    return found[0]


def test_a_lost_lease_is_made_up_for_with_everything_and_nothing_to_load_again(
    store: FaultyStore, session: Publisher, other_store: Store
) -> None:
    session.publish(b"full", catalog=b"c")
    session.publish(b"part", label="part")
    before, labels = keys(store), record(store).labels
    assert other_store.revoke(store.leases[0].id, timeout=1)
    eventually(lambda: session.sessions == 2)
    eventually(lambda: session.lost is None)
    after = keys(store)
    assert {key: entry.value for key, entry in after.items()} == {key: entry.value for key, entry in before.items()}
    assert {entry.lease for entry in after.values()} == {store.leases[1].id}
    assert len({entry.mod_revision for entry in after.values()}) == 1
    assert record(store).labels == labels
    assert session.publish(b"full", catalog=b"c") == after["a/"].mod_revision


def test_why_a_lost_name_does_not_come_back_is_told(
    directory: Directory, store: FaultyStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(ttl: float, **_: object) -> object:
        raise StoreAuthError("permission denied")

    session = directory.open_publisher("a", incarnation=ONE)
    with monkeypatch.context() as patch:
        patch.setattr(store, "grant", deny)
        store.revoke(store.leases[0].id, timeout=1)
        eventually(lambda: "not back yet: permission denied" in str(session.lost))

    def is_back() -> bool:
        clock.advance(1)
        return session.lost is None

    eventually(is_back)
    assert session.sessions == 2


def test_a_lost_lease_is_told(directory: Directory, store: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(ttl: float, **_: object) -> object:
        raise StoreUnavailableError("away")

    session = directory.open_publisher("a", incarnation=ONE, ttl=7)
    monkeypatch.setattr(store, "grant", away)
    store.revoke(store.leases[0].id, timeout=1)
    eventually(lambda: session.lost)
    assert "7 s" in str(session.lost)
    assert "lost" in repr(session)
    with pytest.raises(StoreUnavailableError):
        session.publish(b"1")
    monkeypatch.undo()
    session.publish(b"2")
    assert "lost" not in repr(session)
    assert keys(store)["a/metadata"].value == b"2"


def test_what_failed_for_the_store_is_made_up_for_when_it_is_back(
    store: FaultyStore, session: Publisher, clock: FakeClock
) -> None:
    store.faults.append(Fault.LOST_REQUEST)
    with pytest.raises(StoreUnavailableError):
        session.publish(b"1")
    assert "a/metadata" not in keys(store)
    clock.advance(5)
    eventually(lambda: "a/metadata" in keys(store))


def test_what_can_never_be_published_is_not_tried_again(store: FaultyStore, session: Publisher) -> None:
    session.publish(b"1")
    with pytest.raises(StoreLimitError):
        session.publish(bytes(MAX_CONTENT_SIZE + 1))
    with pytest.raises(ConfigurationError):
        session.update(attributes={"role": "x" * 300})
    start = session.update(attributes={"role": "decode"})
    assert keys(store)["a/metadata"].value == b"1"
    assert changes(store, start) == []


@pytest.mark.parametrize("gone", [[".presence/a"], ["a/"], ["a/metadata"], [".presence/a", "a/", "a/metadata"]])
def test_keys_that_somebody_deletes_are_put_again_on_the_same_lease(
    store: FaultyStore, session: Publisher, other_store: Store, gone: list[str]
) -> None:
    session.publish(b"1", catalog=b"c")
    before = keys(store)
    other_store.transact(Transaction((), tuple(Delete(f"/prod/{key}") for key in gone)), timeout=1)
    eventually(lambda: keys(store).keys() == before.keys())
    assert {entry.lease for entry in keys(store).values()} == {store.leases[0].id}
    assert {key: entry.value for key, entry in keys(store).items()} == {k: e.value for k, e in before.items()}
    assert len(store.leases) == 1


def test_a_record_that_vanishes_while_another_key_is_put_back_costs_no_session(
    store: FaultyStore, other_store: Store, session: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    repair, repairs = Session.repair, list[str]()

    def repair_and_lose_the_record(*arguments: Any) -> None:
        repair(*arguments)
        repairs.append("")
        if len(repairs) == 1:
            other_store.transact(Transaction((), (Delete("/prod/.presence/a"),)), timeout=1)

    session.publish(b"1")
    monkeypatch.setattr(Session, "repair", repair_and_lose_the_record)
    other_store.transact(Transaction((), (Delete("/prod/a/"),)), timeout=1)
    eventually(lambda: len(repairs) >= 2)
    eventually(lambda: set(keys(store)) == {"a/", ".presence/a", "a/metadata"})
    eventually(lambda: session.lost is None)
    assert session.sessions == 1


def test_a_stranger_under_the_name_is_told_of_and_not_fought(
    store: FaultyStore, directory: Directory, session: Publisher, other_store: Store
) -> None:
    """As when a real NIXL agent starts under a live name: it heeds no lease."""
    session.publish(b"1")
    with directory.watch() as watch:
        start = other_store.transact(
            Transaction((), (Put("/prod/a/", b""), Put("/prod/a/metadata", b"x"))), timeout=1
        ).revision
        assert {conflicts(watch).key, conflicts(watch).key} == {"/prod/a/", "/prod/a/metadata"}
    assert session.lost is None
    assert changes(store, start) == []
    session.publish(b"1")
    assert keys(store)["a/metadata"].value == b"1"
    assert keys(store)["a/"].lease == 0


def test_a_name_that_was_taken_while_the_lease_was_lost_is_lost_for_good(
    store: FaultyStore, directory: Directory, session: Publisher, other_store: Store
) -> None:
    session.publish(b"1")
    lease = other_store.grant(30, timeout=1)
    record_of_two = encode_presence(Presence(incarnation=TWO))
    with directory.watch() as watch:
        other_store.revoke(store.leases[0].id, timeout=1)
        other_store.transact(Transaction((), (Put("/prod/.presence/a", record_of_two, lease.id),)), timeout=1)
        if not session.is_superseded:  # unless it was faster, and had the name again
            assert conflicts(watch) == NameConflict("a", "/prod/.presence/a", is_lost=True)
    with pytest.raises(SupersededError, match="took the name"):
        session.publish(b"2")
    assert session.is_superseded
    assert decode_presence(keys(store)[".presence/a"].value).incarnation == TWO


def test_a_replaced_session_is_superseded(directory: Directory, store: FaultyStore, session: Publisher) -> None:
    session.publish(b"1")
    with directory.open_publisher("a", incarnation=TWO, takeover=True) as successor:
        successor.publish(b"2")
        with pytest.raises(SupersededError, match="took the name"):
            session.publish(b"1")
        with pytest.raises(SupersededError):
            session.withdraw()
        session.close()
        assert keys(store)["a/metadata"].value == b"2"


def test_after_a_lost_answer_the_truth_is_looked_up(store: FaultyStore, session: Publisher) -> None:
    store.faults.append(Fault.LOST_ANSWER)
    with pytest.raises(StoreUnavailableError):
        session.publish(b"1", catalog=b"c")
    assert keys(store)["a/metadata"].value == b"1"
    session.publish(b"part", label="part")
    presence = record(store)
    assert presence.labels["metadata"].generation < presence.labels["part"].generation
    assert presence.catalog == content_record(b"c")


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.LOST_REQUEST])
def test_the_marker_is_put_only_after_it_was_deleted(store: FaultyStore, session: Publisher, fault: Fault) -> None:
    start = session.publish(b"1")
    store.faults.append(fault)
    with pytest.raises(StoreUnavailableError):
        session.withdraw()
    session.publish(b"2")
    session.publish(b"3")
    puts_and_deletes = [("a/" in put, "a/" in deleted) for put, deleted in changes(store, start)]
    happened = [(False, True), (True, False)] if fault is Fault.LOST_ANSWER else [(False, False)]
    assert puts_and_deletes == [*happened, (False, False)]


def test_a_marker_that_was_sent_twice_is_put_once(store: FaultyStore, session: Publisher) -> None:
    session.publish(b"1")
    start = session.withdraw()
    store.faults.append(Fault.REPEATED)
    revision = session.publish(b"2")
    assert [("a/" in put, "a/" in deleted) for put, deleted in changes(store, start)] == [(True, False)]
    assert keys(store)["a/metadata"].mod_revision == revision
    assert session.lost is None


def test_a_publication_sent_twice_counts_once(store: FaultyStore, session: Publisher) -> None:
    store.faults.append(Fault.REPEATED)
    session.publish(b"1")
    assert record(store).labels["metadata"].generation == 1
