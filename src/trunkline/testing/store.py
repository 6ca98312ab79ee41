"""What every store promises, as tests.

A plug-in's tests subclass :class:`StoreContract` and give three fixtures:

    class TestMine(StoreContract):
        @pytest.fixture
        def store(self) -> Iterator[Store]: ...        # a connection, closed afterwards
        @pytest.fixture
        def other_store(self) -> Iterator[Store]: ...  # a second one, to the same data
        @pytest.fixture
        def prefix(self) -> str: ...                   # keys that the test has for itself; ends in a slash

:mod:`trunkline.testing.store_comparison` compares random histories with those of the memory store.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from trunkline.errors import ClosedError, StoreLimitError, StoreRequestError
from trunkline.store.contract import (
    NO_LEASE,
    Changed,
    Delete,
    Entry,
    Get,
    KeyHasLease,
    KeyHasRevision,
    KeyIsAbsent,
    Operation,
    Put,
    Snapshot,
    Store,
    Transaction,
    TransactionResult,
    Watch,
)

WAIT = 20.0
"""Seconds after which a test gives up: an upper bound, not a claim about speed."""


def transact(store: Store, *then: Operation) -> TransactionResult:
    """Run operations without conditions."""
    return store.transact(Transaction((), then), timeout=WAIT)


def put(store: Store, key: str, value: bytes = b"", lease: int = NO_LEASE) -> int:
    """Put one key; return the revision."""
    return transact(store, Put(key, value, lease)).revision


def next_change(watch: Watch) -> Changed:
    """Return the next event, which must be a change."""
    event = watch.next(WAIT)
    assert isinstance(event, Changed), event
    return event


def next_snapshot(watch: Watch) -> Snapshot:
    """Return the next event, which must be a snapshot."""
    event = watch.next(WAIT)
    assert isinstance(event, Snapshot), event
    return event


class StoreContract:
    """Tests of the promises in :mod:`trunkline.store.contract`. Subclasses give the fixtures."""

    def pass_time(self, seconds: float) -> None:
        """Let the store's time pass. A store with a clock of its own overrides this."""
        time.sleep(seconds)

    # Reading and writing

    def test_a_key_that_was_never_put_is_none(self, store: Store, prefix: str) -> None:
        entry, revision = store.get(prefix + "a", timeout=WAIT)
        assert entry is None
        assert revision >= 1

    def test_what_was_put_is_read_by_everybody(self, store: Store, other_store: Store, prefix: str) -> None:
        revision = put(store, prefix + "a", b"\x00\xff")
        for each in (store, other_store):
            assert each.get(prefix + "a", timeout=WAIT)[0] == Entry(prefix + "a", b"\x00\xff", revision, revision)

    def test_keys_of_any_text_and_empty_values_survive(self, store: Store, prefix: str) -> None:
        for key in ("ä", "日本", "a b", 'quote"', "\udc80"):
            put(store, prefix + key)
            entry, _ = store.get(prefix + key, timeout=WAIT)
            assert entry is not None
            assert (entry.key, entry.value) == (prefix + key, b"")

    def test_create_and_mod_revision(self, store: Store, prefix: str) -> None:
        first = put(store, prefix + "a", b"1")
        second = put(store, prefix + "a", b"2")
        assert store.get(prefix + "a", timeout=WAIT)[0] == Entry(prefix + "a", b"2", first, second)
        transact(store, Delete(prefix + "a"))
        third = put(store, prefix + "a", b"3")
        assert store.get(prefix + "a", timeout=WAIT)[0] == Entry(prefix + "a", b"3", third, third)

    def test_a_list_is_sorted_and_holds_the_prefix_only(self, store: Store, prefix: str) -> None:
        for key in ("b/2", "b", "b/1", "bb", "a", "b/10"):
            put(store, prefix + key, key.encode())
        snapshot = store.list(prefix + "b/", timeout=WAIT)
        assert [entry.key.removeprefix(prefix) for entry in snapshot.entries] == ["b/1", "b/10", "b/2"]
        assert [entry.value for entry in snapshot.entries] == [b"b/1", b"b/10", b"b/2"]
        assert len(store.list(prefix + "b", timeout=WAIT).entries) == 5
        assert store.list(prefix + "c", timeout=WAIT).entries == ()

    def test_a_list_of_keys_only_has_everything_but_values(self, store: Store, prefix: str) -> None:
        revision = put(store, prefix + "a", b"value")
        assert store.list(prefix, keys_only=True, timeout=WAIT) == Snapshot(
            (Entry(prefix + "a", b"", revision, revision),), revision
        )

    # Transactions

    def test_all_writes_of_a_transaction_share_one_revision(self, store: Store, prefix: str) -> None:
        before = put(store, prefix + "old")
        result = transact(store, Put(prefix + "a", b"1"), Put(prefix + "b", b"2"), Delete(prefix + "old"))
        assert result.revision == before + 1
        snapshot = store.list(prefix, timeout=WAIT)
        assert [(entry.key, entry.mod_revision) for entry in snapshot.entries] == [
            (prefix + "a", result.revision),
            (prefix + "b", result.revision),
        ]

    def test_what_changes_nothing_has_no_revision_of_its_own(self, store: Store, prefix: str) -> None:
        before = put(store, prefix + "a")
        assert transact(store, Get(prefix + "a"), Delete(prefix + "b")).revision == before
        assert store.get(prefix + "a", timeout=WAIT)[1] == before

    def test_conditions_choose_the_branch(self, store: Store, prefix: str) -> None:
        key = prefix + "a"
        lease = store.grant(60, timeout=WAIT)
        revision = put(store, key, b"1", lease.id)
        for condition, holds in (
            (KeyIsAbsent(key), False),
            (KeyIsAbsent(prefix + "b"), True),
            (KeyHasLease(key, lease.id), True),
            (KeyHasLease(key, lease.id + 1), False),
            (KeyHasLease(prefix + "b", lease.id), False),
            (KeyHasRevision(key, revision), True),
            (KeyHasRevision(key, revision - 1), False),
            (KeyHasRevision(prefix + "b", 0), True),
        ):
            result = store.transact(Transaction((condition,), (), (Get(key),)), timeout=WAIT)
            assert result.succeeded is holds, condition
            assert len(result.reads) == (not holds)

    def test_all_conditions_have_to_hold(self, store: Store, prefix: str) -> None:
        put(store, prefix + "a")
        conditions = (KeyIsAbsent(prefix + "b"), KeyIsAbsent(prefix + "a"))
        result = store.transact(
            Transaction(conditions, (Put(prefix + "b", b"then"),), (Put(prefix + "b", b"otherwise"),)), timeout=WAIT
        )
        assert not result.succeeded
        entry, _ = store.get(prefix + "b", timeout=WAIT)
        assert entry is not None
        assert entry.value == b"otherwise"

    def test_reads_come_in_order_and_see_the_writes_before_them(self, store: Store, prefix: str) -> None:
        put(store, prefix + "x/1", b"1")
        result = transact(
            store,
            Get(prefix + "x/", prefix=True),
            Put(prefix + "x/2", b"2"),
            Get(prefix + "x/", prefix=True),
            Get(prefix + "none"),
            Get(prefix + "x/1"),
        )
        values = [[entry.value for entry in read] for read in result.reads]
        assert values == [[b"1"], [b"1", b"2"], [], [b"1"]]

    def test_a_prefix_is_deleted_whole_and_nothing_else(self, store: Store, prefix: str) -> None:
        for key in ("a/", "a/1", "a/b/2", "a", "ab"):
            put(store, prefix + key)
        transact(store, Delete(prefix + "a/", prefix=True))
        assert [entry.key for entry in store.list(prefix, timeout=WAIT).entries] == [prefix + "a", prefix + "ab"]

    def test_writing_a_key_twice_is_refused_and_nothing_happens(self, store: Store, prefix: str) -> None:
        key = prefix + "a"
        for twice in (
            (Put(key, b"1"), Put(key, b"2")),
            (Delete(key), Put(key, b"2")),
            (Put(key, b"2"), Delete(prefix, prefix=True)),
        ):
            with pytest.raises(StoreRequestError):
                transact(store, *twice)
            with pytest.raises(StoreRequestError):
                store.transact(Transaction((), (), twice), timeout=WAIT)
        assert store.list(prefix, timeout=WAIT).entries == ()
        transact(store, Delete(key), Delete(key))

    def test_too_large_and_too_many_are_refused(self, store: Store, prefix: str) -> None:
        with pytest.raises(StoreLimitError):
            put(store, prefix + "a", bytes(1_572_864))
        with pytest.raises(StoreLimitError):
            put(store, prefix + "a", bytes(3_000_000))
        with pytest.raises(StoreLimitError):
            transact(store, *(Put(f"{prefix}{number}", b"") for number in range(129)))
        transact(store, *(Put(f"{prefix}{number}", b"") for number in range(128)))
        put(store, prefix + "a", bytes(1_400_000))

    def test_one_of_many_claims_succeeds(self, store: Store, other_store: Store, prefix: str) -> None:
        key = prefix + "name"

        def claim(number: int) -> bool:
            each = (store, other_store)[number % 2]
            return each.transact(
                Transaction((KeyIsAbsent(key),), (Put(key, str(number).encode()),)), timeout=WAIT
            ).succeeded

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(claim, range(16))) == 1

    # Leases

    def test_revoking_a_lease_deletes_its_keys_in_one_revision(self, store: Store, prefix: str) -> None:
        lease = store.grant(60, timeout=WAIT)
        transact(store, Put(prefix + "a", b"", lease.id), Put(prefix + "b", b"", lease.id))
        revision = put(store, prefix + "c")
        with store.watch(prefix, prefix=True, after=revision) as watch:
            lease.close(WAIT)
            assert next_change(watch) == Changed((), (prefix + "a", prefix + "b"), revision + 1)
        assert not lease.is_lost

    def test_the_last_put_says_which_lease_a_key_is_on(self, store: Store, prefix: str) -> None:
        first, second = store.grant(60, timeout=WAIT), store.grant(60, timeout=WAIT)
        for key, lease in (("a", second.id), ("b", NO_LEASE), ("c", first.id)):
            put(store, prefix + key, b"", first.id)
            put(store, prefix + key, b"", lease)
        first.close(WAIT)
        assert [(entry.key, entry.lease) for entry in store.list(prefix, timeout=WAIT).entries] == [
            (prefix + "a", second.id),
            (prefix + "b", NO_LEASE),
        ]

    def test_a_lease_has_a_number_a_ttl_and_a_life(self, store: Store, other_store: Store) -> None:
        lease = store.grant(45, timeout=WAIT)
        assert lease.id != NO_LEASE
        assert lease.ttl == 45
        left = other_store.time_to_live(lease.id, timeout=WAIT)
        assert left is not None
        assert 0 < left <= 45
        lease.close(WAIT)
        lease.close(WAIT)
        assert other_store.time_to_live(lease.id, timeout=WAIT) is None

    def test_an_unknown_lease_is_refused_where_it_would_be_used(self, store: Store, prefix: str) -> None:
        lease = store.grant(60, timeout=WAIT)
        lease.close(WAIT)
        with pytest.raises(StoreRequestError):
            put(store, prefix + "a", b"", lease.id)
        unused = Transaction((KeyHasLease(prefix + "b", lease.id),), (Put(prefix + "a", b"", lease.id),))
        assert not store.transact(unused, timeout=WAIT).succeeded
        assert store.revoke(lease.id, timeout=WAIT) is False
        assert store.time_to_live(lease.id, timeout=WAIT) is None

    def test_an_orphaned_lease_runs_out_and_its_keys_are_seen_to_go(
        self, store: Store, other_store: Store, prefix: str
    ) -> None:
        lease = store.grant(2, timeout=WAIT)
        revision = put(store, prefix + "a", b"", lease.id)
        with other_store.watch(prefix, prefix=True, after=revision) as watch:
            lease.orphan()
            assert store.get(prefix + "a", timeout=WAIT)[0] is not None
            self.pass_time(lease.ttl)
            assert next_change(watch).deleted == (prefix + "a",)
        assert other_store.time_to_live(lease.id, timeout=WAIT) is None

    def test_a_lease_is_kept_alive(self, store: Store, prefix: str) -> None:
        lease = store.grant(2, timeout=WAIT)
        put(store, prefix + "a", b"", lease.id)
        self.pass_time(lease.ttl * 2.5)
        assert not lease.is_lost
        assert store.get(prefix + "a", timeout=WAIT)[0] is not None

    def test_losing_a_lease_is_told_once_by_another_thread(self, store: Store, other_store: Store) -> None:
        told: list[threading.Thread] = []
        happened = threading.Event()

        def on_lost() -> None:
            told.append(threading.current_thread())
            happened.set()

        lease = store.grant(2, on_lost=on_lost, timeout=WAIT)
        was_lost = lease.is_lost
        assert not was_lost
        assert other_store.revoke(lease.id, timeout=WAIT) is True
        self.pass_time(lease.ttl)
        assert happened.wait(WAIT)
        assert lease.is_lost
        lease.close(WAIT)
        assert lease.is_lost
        assert len(told) == 1
        assert told[0] is not threading.current_thread()

    def test_closing_a_lease_oneself_is_not_losing_it(self, store: Store) -> None:
        told: list[int] = []
        lease = store.grant(2, on_lost=lambda: told.append(1), timeout=WAIT)
        lease.close(WAIT)
        self.pass_time(lease.ttl)
        assert not told
        assert not lease.is_lost

    def test_closing_the_store_orphans_its_leases(self, store: Store, other_store: Store, prefix: str) -> None:
        lease = store.grant(2, timeout=WAIT)
        revision = put(store, prefix + "a", b"", lease.id)
        with other_store.watch(prefix, prefix=True, after=revision) as watch:
            store.close()
            assert other_store.get(prefix + "a", timeout=WAIT)[0] is not None
            self.pass_time(lease.ttl)
            assert next_change(watch).deleted == (prefix + "a",)

    # Watches

    def test_a_watch_starts_with_a_snapshot_even_when_empty(self, store: Store, prefix: str) -> None:
        with store.watch(prefix, prefix=True) as watch:
            assert next_snapshot(watch).entries == ()
            revision = put(store, prefix + "a", b"1")
            assert next_change(watch) == Changed((Entry(prefix + "a", b"1", revision, revision),), (), revision)
        with store.watch(prefix, prefix=True) as watch:
            snapshot = next_snapshot(watch)
            assert [entry.key for entry in snapshot.entries] == [prefix + "a"]
            assert snapshot.revision >= revision

    def test_a_watch_goes_on_from_a_revision_without_gaps(self, store: Store, prefix: str) -> None:
        _, start = store.get(prefix + "a", timeout=WAIT)
        revisions = [put(store, f"{prefix}{number}") for number in range(5)]
        with store.watch(prefix, prefix=True, after=start) as watch:
            assert [next_change(watch).revision for _ in revisions] == revisions
        with store.watch(prefix, prefix=True, after=revisions[2]) as watch:
            assert next_change(watch).revision == revisions[3]

    def test_a_watch_sees_one_key_or_its_prefix_only(self, store: Store, prefix: str) -> None:
        start = put(store, prefix + "a/1")
        with (
            store.watch(prefix + "a", after=start) as one,
            store.watch(prefix + "a/", prefix=True, after=start) as below,
        ):
            for key in ("ab", "a/2", "b", "a", "ab", "a/3", "a"):
                put(store, prefix + key)
            assert [next_change(one).put[0].key for _ in range(2)] == [prefix + "a"] * 2
            assert [next_change(below).put[0].key for _ in range(2)] == [prefix + "a/2", prefix + "a/3"]

    def test_changes_of_one_transaction_come_together(self, store: Store, prefix: str) -> None:
        start = put(store, prefix + "old")
        with store.watch(prefix, prefix=True, after=start) as watch:
            revision = transact(store, Put(prefix + "a", b""), Delete(prefix + "old"), Put(prefix + "b", b"")).revision
            change = next_change(watch)
            assert [entry.key for entry in change.put] == [prefix + "a", prefix + "b"]
            assert change.deleted == (prefix + "old",)
            assert change.revision == revision

    def test_a_delete_between_two_puts_is_seen(self, store: Store, prefix: str) -> None:
        start = put(store, prefix + "a", b"1")
        transact(store, Delete(prefix + "a"))
        put(store, prefix + "a", b"2")
        with store.watch(prefix + "a", after=start) as watch:
            assert next_change(watch).deleted == (prefix + "a",)
            assert next_change(watch).put[0].value == b"2"

    def test_a_watch_before_the_change_is_told_by_any_connection(
        self, store: Store, other_store: Store, prefix: str
    ) -> None:
        with store.watch(prefix, prefix=True) as watch, ThreadPoolExecutor(1) as threads:
            next_snapshot(watch)
            event = threads.submit(watch.next, WAIT)
            revision = put(other_store, prefix + "a")
            change = event.result(WAIT)
            assert isinstance(change, Changed)
            assert change.revision == revision

    def test_waiting_ends_with_its_time(self, store: Store, prefix: str) -> None:
        with store.watch(prefix, prefix=True) as watch:
            next_snapshot(watch)
            assert watch.next(0) is None

    @pytest.mark.parametrize("close_store", [False, True])
    def test_closing_wakes_who_waits(self, store: Store, prefix: str, *, close_store: bool) -> None:
        watch = store.watch(prefix, prefix=True)
        next_snapshot(watch)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(watch.next, None)
            (store if close_store else watch).close()
            with pytest.raises(ClosedError):
                waiting.result(WAIT)
        watch.close()
        with pytest.raises(ClosedError):
            watch.next(0)

    def test_a_watch_is_iterated_until_closed(self, store: Store, prefix: str) -> None:
        seen: list[object] = []
        watch = store.watch(prefix, prefix=True)
        for event in watch:
            seen.append(event)
            if len(seen) == 1:
                put(store, prefix + "a")
            else:
                watch.close()
        assert [type(event) for event in seen] == [Snapshot, Changed]

    # The store itself

    def test_a_closed_store_says_so(self, store: Store, prefix: str) -> None:
        lease = store.grant(60, timeout=WAIT)
        store.close()
        store.close()
        for use in (
            lambda: store.get(prefix, timeout=WAIT),
            lambda: store.list(prefix, timeout=WAIT),
            lambda: transact(store, Get(prefix)),
            lambda: store.grant(60, timeout=WAIT),
            lambda: store.revoke(lease.id, timeout=WAIT),
            lambda: store.time_to_live(lease.id, timeout=WAIT),
            lambda: store.watch(prefix).next(WAIT),
        ):
            with pytest.raises(ClosedError):
                use()
        lease.close(WAIT)

    def test_its_url_names_it(self, store: Store) -> None:
        assert "://" in store.url

    def test_many_threads_lose_nothing(self, store: Store, other_store: Store, prefix: str) -> None:
        """Compare-and-put from two connections: every success is one step of the counter, and a watch sees each."""
        key, steps = prefix + "counter", 10
        start = put(store, key, b"0")

        def count(number: int) -> None:
            each = (store, other_store)[number % 2]
            done = 0
            while done < steps:
                entry, _ = each.get(key, timeout=WAIT)
                assert entry is not None
                step = Transaction(
                    (KeyHasRevision(key, entry.mod_revision),), (Put(key, str(int(entry.value) + 1).encode()),)
                )
                done += each.transact(step, timeout=WAIT).succeeded

        with store.watch(key, after=start) as watch, ExitStack() as stack:
            threads = stack.enter_context(ThreadPoolExecutor(4))
            finished = [threads.submit(count, number) for number in range(4)]
            values = [int(next_change(watch).put[0].value) for _ in range(4 * steps)]
            for each in finished:
                each.result(WAIT)
        assert values == list(range(1, 4 * steps + 1))
