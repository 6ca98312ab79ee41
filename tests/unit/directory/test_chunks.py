from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.directory import Directory
from trunkline.directory.chunks import CHUNK_SIZE, MAX_CONTENT_SIZE, MAX_TRANSACTION_SIZE, choose_chunked
from trunkline.directory.event import PeerJoined, PeerUpdated, Synced
from trunkline.errors import (
    AgentNotFoundError,
    MetadataDecodeError,
    RevisionUnavailableError,
    StoreLimitError,
    StoreUnavailableError,
    SupersededError,
)
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.codec import decode, encode
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata
from trunkline.metadata.presence import (
    ChunksRecord,
    ContentRecord,
    LabelRecord,
    Presence,
    content_record,
    decode_presence,
    encode_presence,
)
from trunkline.store.contract import Changed, Delete, Get, Put, Transaction
from trunkline.testing.faulty_store import Fault, FaultyStore
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from trunkline.directory import Publisher
    from trunkline.directory.event import DirectoryEvent
    from trunkline.directory.publication import Publication
    from trunkline.store.contract import Entry, Store, TransactionResult
    from trunkline.testing.clock import FakeClock

ONE, TWO = "1" * 32, "2" * 32


def metadata(regions: int, first: int = 0) -> bytes:
    """Return NIXL's bytes of an agent with so many regions, 49 bytes each."""
    address = 4096 * np.arange(first, first + regions, dtype=np.uint64)
    rows = np.stack([address, np.full_like(address, 4096), np.zeros_like(address)], 1)
    every = np.arange(regions, dtype=np.int64)
    keys = RemoteKeys(b"0123456789abcdef", 0 * every, 0 * every + 16)
    return encode(AgentMetadata("a", {"UCX": b"address"}, (SectionMetadata("UCX", MemoryKind.DRAM, rows, keys),)))


LARGE, OTHER = metadata(40_000), metadata(40_000, first=7)
COUNT = -(-len(LARGE) // CHUNK_SIZE)
SMALL = metadata(3)


@pytest.fixture
def publisher(other_store: Store, clock: FakeClock) -> Publisher:
    """One in another process, so that the reader's transactions are told apart from its."""
    return Directory(other_store, namespace="/prod", clock=clock).open_publisher("a", incarnation=ONE)


@pytest.fixture
def session(directory: Directory) -> Publisher:
    return directory.open_publisher("a", incarnation=ONE)


def keys(store: Store) -> dict[str, Entry]:
    return {entry.key.removeprefix("/prod/"): entry for entry in store.list("/prod/", timeout=1).entries}


def chunks(store: Store) -> list[Entry]:
    return list(store.list("/prod/.chunks/", timeout=1).entries)


def record(store: Store) -> Presence:
    return decode_presence(keys(store)[".presence/a"].value)


def place(store: Store) -> ChunksRecord:
    """Return where the full metadata lies."""
    found = record(store).labels["metadata"].chunks
    assert found is not None
    return found


def changes(store: Store, after: int) -> list[tuple[set[str], set[str]]]:
    """Return what each revision put and deleted, without the numbers of chunks."""
    seen = []
    with store.watch("/prod/", prefix=True, after=after) as watch:
        while (event := watch.next(0)) is not None:
            assert isinstance(event, Changed)
            put = {_short(entry.key) for entry in event.put}
            seen.append((put, {_short(key) for key in event.deleted}))
    return seen


def _short(key: str) -> str:
    return ".chunks" if key.startswith("/prod/.chunks/a/") else key.removeprefix("/prod/")


def same(publication: Publication, content: bytes, catalog: bytes | None = None) -> bool:
    """Return whether it is that; without the bytes in the report of a failure."""
    return publication.metadata == content and publication.catalog == catalog


def test_what_is_small_together_is_not_chunked_and_any_reader_reads_it(store: FaultyStore, session: Publisher) -> None:
    session.publish(SMALL, catalog=b"c")
    assert keys(store).keys() == {"a/", "a/metadata", ".presence/a", ".catalog/a"}
    assert (record(store).format, record(store).min_reader) == (2, 1)


def test_chunks_come_first_then_the_record_that_names_them(store: FaultyStore, session: Publisher) -> None:
    start = store.list("/prod/", timeout=1).revision
    revision = session.publish(LARGE, catalog=b"c")
    written = {"a/metadata", ".presence/a", ".catalog/a"}
    assert changes(store, start) == [({".chunks"}, set())] * COUNT + [(written, set())]
    assert {entry.lease for entry in keys(store).values()} == {store.leases[0].id}
    assert all(len(entry.value) <= CHUNK_SIZE for entry in chunks(store))
    assert b"".join(entry.value for entry in chunks(store)) == LARGE
    assert keys(store)[".presence/a"].mod_revision == revision
    assert (record(store).min_reader, place(store).count) == (2, COUNT)
    assert record(store).labels["metadata"].describes(LARGE)
    assert record(store).catalog is not None


def test_nixl_s_agents_find_connection_info_and_no_memory(store: FaultyStore, session: Publisher) -> None:
    session.publish(LARGE)
    left = decode(keys(store)["a/metadata"].value)
    assert (left.agent, left.connections, left.sections) == ("a", {"UCX": b"address"}, ())
    session.publish(bytes(MAX_TRANSACTION_SIZE + 1))  # which is not NIXL's
    assert keys(store)["a/metadata"].value == b""


def test_the_largest_are_chunked_until_the_rest_fits() -> None:
    contents = {"a": bytes(3), "b": bytes(5), "c": bytes(4)}
    assert choose_chunked(contents, 12) == set()
    assert choose_chunked(contents, 11) == {"b"}
    assert choose_chunked(contents, 6) == {"b", "c"}
    assert choose_chunked(contents, 2) == {"a", "b", "c"}


@pytest.mark.parametrize(("content", "catalog"), [(LARGE, b"c"), (SMALL, LARGE), (LARGE, OTHER), (LARGE, None)])
def test_a_reader_gets_it_whole(
    directory: Directory, publisher: Publisher, store: FaultyStore, content: bytes, catalog: bytes | None
) -> None:
    publisher.publish(content, catalog=catalog)
    found = directory.fetch("a", timeout=0)
    assert same(found, content, catalog)
    assert found.presence is not None
    assert ".catalog/a" in keys(store) or catalog in (None, LARGE, OTHER)


def test_who_waits_gets_it_when_it_is_complete(
    directory: Directory, publisher: Publisher, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    waiting = threads.submit(directory.fetch, "a")
    clock.until_waiting(1)
    publisher.publish(LARGE, catalog=OTHER)
    assert same(waiting.result(60), LARGE, OTHER)


def test_an_update_has_chunks_of_its_own_and_the_former_ones_go_last(store: FaultyStore, session: Publisher) -> None:
    start = session.publish(LARGE)
    former = place(store).directory
    session.publish(OTHER)
    written = {"a/metadata", ".presence/a"}
    assert changes(store, start) == [({".chunks"}, set())] * COUNT + [(written, set()), (set(), {".chunks"})]
    assert place(store).directory != former
    assert len(chunks(store)) == COUNT
    assert record(store).labels["metadata"].generation == 2


def test_what_stays_the_same_is_not_written_again(store: FaultyStore, session: Publisher) -> None:
    revision = session.publish(LARGE, catalog=OTHER)
    assert session.publish(LARGE, catalog=OTHER) == revision
    session.update(attributes={"role": "decode"})
    session.publish(LARGE, catalog=OTHER, label="more")  # the same bytes, and yet another content
    written = {"a/more", ".presence/a"}
    assert changes(store, revision) == [({".presence/a"}, set()), *[({".chunks"}, set())] * COUNT, (written, set())]


def test_what_becomes_small_again_is_one_value_again(store: FaultyStore, session: Publisher) -> None:
    session.publish(LARGE, catalog=OTHER)
    session.publish(SMALL, catalog=b"c")
    assert keys(store).keys() == {"a/", "a/metadata", ".presence/a", ".catalog/a"}
    assert keys(store)["a/metadata"].value == SMALL
    assert record(store).min_reader == 1


@pytest.mark.parametrize("end", ["withdraw", "close", "revoke"])
def test_chunks_go_with_what_they_are_chunks_of(
    store: FaultyStore, session: Publisher, other_store: Store, end: str
) -> None:
    session.publish(LARGE, catalog=OTHER)
    if end == "withdraw":
        session.withdraw()
        assert keys(store).keys() == {".presence/a"}
        assert record(store).min_reader == 1
    elif end == "close":
        session.close()
        assert keys(store) == {}
        [last] = [put for put in store.transactions[-1].then if isinstance(put, Put)]
        assert decode_presence(last.value).min_reader == 1
    else:
        store.close()  # as when it dies: its lease runs out
        other_store.revoke(store.leases[0].id, timeout=1)
        assert keys(other_store) == {}


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


CHUNKED = ChunksRecord("0123", 2)


@pytest.mark.parametrize(
    ("label", "catalog"),
    [
        (LabelRecord(2**60, "0" * 64, 1, chunks=CHUNKED), None),
        (LabelRecord(MAX_CONTENT_SIZE + 1, "0" * 64, 1, chunks=CHUNKED), None),
        (
            LabelRecord(len(SMALL), content_record(SMALL).sha256, 1),
            ContentRecord(MAX_CONTENT_SIZE + 1, "0" * 64, chunks=CHUNKED),
        ),
    ],
)
def test_a_record_that_promises_too_much_is_refused_before_anything_of_it_is_read(
    directory: Directory, store: FaultyStore, label: LabelRecord, catalog: ContentRecord | None
) -> None:
    told = Presence(incarnation=ONE).publishing({"metadata": label}, catalog)
    puts = Put("/prod/a/metadata", SMALL), Put("/prod/.presence/a", encode_presence(told))
    store.transact(Transaction((), puts), timeout=1)
    before = len(store.transactions)
    with pytest.raises(MetadataDecodeError, match="at most 67108864"):
        directory.fetch("a", timeout=0)
    assert len(store.transactions) == before + 1


def test_chunks_that_hold_more_than_was_promised_are_not_read_to_the_end(
    directory: Directory, store: FaultyStore
) -> None:
    promised = LabelRecord(10, "0" * 64, 1, chunks=ChunksRecord("0123", 256))
    told = Presence(incarnation=ONE).publishing({"metadata": promised}, None)
    puts = [Put("/prod/a/metadata", SMALL), Put("/prod/.presence/a", encode_presence(told))]
    puts += [Put(f"/prod/.chunks/a/0123/{number}", b"123456") for number in range(20)]
    store.transact(Transaction((), tuple(puts)), timeout=1)
    before = len(store.transactions)
    with pytest.raises(AgentNotFoundError, match="do not match"):
        directory.fetch("a", timeout=0)
    looks = store.transactions[before:]
    assert max(len(look.then) for look in looks) == 8
    assert not any(get.key.endswith("/8") for look in looks for get in look.then)


def test_what_is_over_64_mib_is_not_published(store: FaultyStore, session: Publisher) -> None:
    before = len(store.transactions)
    with pytest.raises(StoreLimitError, match="at most 67108864") as caught:
        session.publish(SMALL, catalog=bytes(MAX_CONTENT_SIZE + 1))
    assert caught.value.context["size"] == MAX_CONTENT_SIZE + 1
    assert len(store.transactions) == before
