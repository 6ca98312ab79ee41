"""Contents in chunks when things go wrong: lost leases, chunks gone or altered, failures and updates midway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.directory.conftest import COUNT, LARGE, OTHER, TWO, changes, chunks, keys, metadata, place, record, same

from trunkline.directory import Directory
from trunkline.directory.chunks import CHUNK_SIZE
from trunkline.directory.event import PeerJoined, PeerUpdated, Synced
from trunkline.errors import AgentNotFoundError, RevisionUnavailableError, StoreUnavailableError, SupersededError
from trunkline.store.contract import Delete, Get, Put, Transaction
from trunkline.testing.faulty_store import Fault, FaultyStore
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from trunkline.directory import Publisher
    from trunkline.directory.event import DirectoryEvent
    from trunkline.store.contract import Store, TransactionResult
    from trunkline.testing.clock import FakeClock


def test_a_lost_lease_is_made_up_for_before_anybody_hears_of_an_agent_without_memory(
    store: FaultyStore, session: Publisher, other_store: Store, directory: Directory
) -> None:
    session.publish(LARGE, catalog=OTHER)
    before = record(store)
    with directory.watch() as watch:
        start = other_store.list("/", timeout=1).revision
        other_store.revoke(store.leases[0].id, timeout=1)
        eventually(lambda: session.sessions == 2 and session.lost is None)
        assert {entry.lease for entry in keys(store).values()} == {store.leases[1].id}
        after = record(store)
        assert [label.generation for label in after.labels.values()] == [1]
        assert place(store) not in [content.chunks for content in before.contents]
        assert {".presence/a", "a/", "a/metadata"} in [put for put, _ in changes(store, start)]
        assert same(directory.fetch("a", timeout=0), LARGE, OTHER)
        session.publish(LARGE, catalog=b"last")
        events: list[DirectoryEvent] = []

        def has_heard() -> bool:
            event = watch.next(0)
            events.extend([] if event is None else [event])
            return isinstance(event, PeerUpdated)

        eventually(has_heard)
        assert not [event for event in events if not isinstance(event, (PeerJoined, PeerUpdated, Synced))]


def test_labels_that_fit_alone_but_not_together_come_back_in_chunks(
    store: FaultyStore, session: Publisher, other_store: Store, directory: Directory
) -> None:
    half = metadata(15_000)
    session.publish(half)
    session.publish(half, label="part")
    assert record(store).min_reader == 1
    other_store.revoke(store.leases[0].id, timeout=1)
    eventually(lambda: session.sessions == 2 and session.lost is None)
    assert record(store).min_reader == 2
    assert all(same(directory.fetch("a", label=label, timeout=0), half) for label in ("metadata", "part"))
    assert [label.generation for label in record(store).labels.values()] == [1, 2]


def test_somebody_deletes_everything_and_all_is_put_again(
    store: FaultyStore, session: Publisher, other_store: Store, directory: Directory
) -> None:
    session.publish(LARGE, catalog=OTHER)
    before = keys(store).keys()
    other_store.transact(Transaction((), (Delete("/prod/", prefix=True),)), timeout=1)
    assert same(directory.fetch("a", timeout=30), LARGE, OTHER)
    eventually(lambda: len(keys(store)) == len(before))
    assert {entry.lease for entry in keys(store).values()} == {store.leases[0].id}


def spoil_missing(store: Store, name: str) -> None:
    store.transact(Transaction((), (Delete(name),)), timeout=1)


def spoil_altered(store: Store, name: str) -> None:
    store.transact(Transaction((), (Put(name, b"x" * CHUNK_SIZE),)), timeout=1)


def spoil_longer(store: Store, name: str) -> None:
    store.transact(Transaction((), (Put(name, bytes(CHUNK_SIZE * 2)),)), timeout=1)


def spoil_torn(store: Store, name: str) -> None:
    found, _ = store.get(name, timeout=1)
    assert found is not None
    store.transact(Transaction((), (Put(name, found.value[:-1]),)), timeout=1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_missing, r"its metadata can't be read: .*/1, one of 4 chunks, is missing"),
        (spoil_altered, r"the 4 chunks under /prod/\.chunks/a/.*/ do not match"),
        (spoil_longer, r"the 4 chunks under /prod/\.chunks/a/.*/ do not match"),
        (spoil_torn, r"the 4 chunks under /prod/\.chunks/a/.*/ do not match"),
    ],
)
def test_broken_chunks_are_told_and_written_anew_by_the_next_publication(
    directory: Directory,
    publisher: Publisher,
    store: FaultyStore,
    clock: FakeClock,
    threads: ThreadPoolExecutor,
    spoil: Callable[[Store, str], None],
    reason: str,
) -> None:
    assert COUNT == 4
    publisher.publish(LARGE)
    former = place(store)
    spoil(store, f"/prod/.chunks/a/{former.directory}/1")
    with pytest.raises(AgentNotFoundError, match=reason):
        directory.fetch("a", timeout=0)
    waiting = threads.submit(directory.fetch, "a")
    clock.until_waiting(1)
    publisher.publish(LARGE)
    assert same(waiting.result(60), LARGE)
    assert place(store) != former
    assert record(store).labels["metadata"].generation == 1  # who has loaded it need not load it again
    assert not [entry for entry in chunks(store) if former.directory in entry.key]


@pytest.mark.parametrize("goes_back", [True, False])
def test_an_update_in_the_midst_of_a_fetch_never_leaves_the_reader_without(
    directory: Directory, publisher: Publisher, store: FaultyStore, monkeypatch: pytest.MonkeyPatch, goes_back: bool
) -> None:
    """With history it gets what was there when it looked; without, what is there now. Each is whole."""
    publisher.publish(LARGE, catalog=OTHER)
    updates = iter([(OTHER, LARGE), (LARGE, b"c")])
    transact = store.transact

    def late(transaction: Transaction, *, timeout: float | None) -> TransactionResult:
        reads_chunks = any(isinstance(get, Get) and "/.chunks/" in get.key for get in transaction.then)
        if reads_chunks and (update := next(updates, None)) is not None:
            publisher.publish(update[0], catalog=update[1])
        if not goes_back and any(isinstance(get, Get) and get.revision for get in transaction.then):
            raise RevisionUnavailableError("compacted")
        return transact(transaction, timeout=timeout)

    monkeypatch.setattr(store, "transact", late)
    found = directory.fetch("a", timeout=0 if goes_back else 30)
    assert same(found, *((LARGE, OTHER) if goes_back else (LARGE, b"c")))


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("step", range(COUNT + 2))
def test_the_store_fails_at_any_step_and_what_was_half_written_goes(
    store: FaultyStore, session: Publisher, clock: FakeClock, directory: Directory, fault: Fault, step: int
) -> None:
    session.publish(OTHER)
    store.faults.extend([Fault.NONE] * step + [fault])
    is_lost = fault in (Fault.LOST_REQUEST, Fault.LOST_ANSWER) and step <= COUNT
    if is_lost:
        with pytest.raises(StoreUnavailableError):
            session.publish(LARGE)
        assert same(directory.fetch("a", timeout=0), OTHER) or step == COUNT
    else:
        session.publish(LARGE)
    clock.advance(5)  # it is made up for
    eventually(lambda: record(store).labels["metadata"].describes(LARGE))
    session.publish(LARGE, catalog=b"c")  # what could not be deleted is, by what comes next
    assert len(chunks(store)) == COUNT
    assert same(directory.fetch("a", timeout=0), LARGE, b"c")


def test_who_is_superseded_midway_leaves_nothing(
    store: FaultyStore, session: Publisher, other_store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    transact = store.transact

    def taken_over(transaction: Transaction, *, timeout: float | None) -> TransactionResult:
        if any(isinstance(put, Put) and put.key.endswith("/2") for put in transaction.then):
            monkeypatch.undo()
            Directory(other_store, namespace="/prod", clock=clock).open_publisher("a", incarnation=TWO, takeover=True)
        return transact(transaction, timeout=timeout)

    monkeypatch.setattr(store, "transact", taken_over)
    with pytest.raises(SupersededError):
        session.publish(LARGE)
    assert not any(each.key.endswith("/3") for tried in store.transactions for each in tried.then)
    assert keys(store).keys() == {"a/", ".presence/a"}
    assert record(store).incarnation == TWO
