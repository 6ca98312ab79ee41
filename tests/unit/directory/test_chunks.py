"""Contents too large for one value: how they are written in chunks, read whole again, and how large they may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.directory.conftest import COUNT, LARGE, ONE, OTHER, SMALL, changes, chunks, keys, place, record, same

from trunkline.directory.chunks import CHUNK_SIZE, MAX_CONTENT_SIZE, MAX_TRANSACTION_SIZE, choose_chunked
from trunkline.errors import AgentNotFoundError, MetadataDecodeError, StoreLimitError
from trunkline.metadata.codec import decode
from trunkline.metadata.presence import (
    ChunksRecord,
    ContentRecord,
    LabelRecord,
    Presence,
    content_record,
    decode_presence,
    encode_presence,
)
from trunkline.store.contract import Put, Transaction

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from trunkline.directory import Directory, Publisher
    from trunkline.store.contract import Store
    from trunkline.testing.clock import FakeClock
    from trunkline.testing.faulty_store import FaultyStore


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
