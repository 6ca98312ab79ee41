"""The part of :mod:`trunkline.testing.store` that is about time: leases and watches."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from trunkline.errors import ClosedError, StoreRequestError
from trunkline.store.contract import (
    NO_LEASE,
    Changed,
    Delete,
    Entry,
    KeyHasLease,
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


class LivenessContract:
    """Tests of leases and watches; fixtures as in :class:`trunkline.testing.store.StoreContract`."""

    def pass_time(self, seconds: float) -> None:
        """Let the store's time pass. A store with a clock of its own overrides this."""
        time.sleep(seconds)

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
