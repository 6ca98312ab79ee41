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

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from trunkline.errors import ClosedError, RevisionUnavailableError, StoreLimitError, StoreRequestError
from trunkline.store.contract import (
    Delete,
    Entry,
    Get,
    KeyHasLease,
    KeyHasRevision,
    KeyIsAbsent,
    Put,
    Snapshot,
    Store,
    Transaction,
)
from trunkline.testing.store_liveness import WAIT, LivenessContract, next_change, put, transact


class StoreContract(LivenessContract):
    """Tests of the promises in :mod:`trunkline.store.contract`. Subclasses give the fixtures."""

    # Reading and writing

    def test_a_key_that_was_never_put_is_none(self, store: Store, prefix: str) -> None:
        entry, revision = store.get(prefix + "a", timeout=WAIT)
        assert entry is None
        assert revision >= 1

    def test_what_was_put_is_read_by_everybody(self, store: Store, other_store: Store, prefix: str) -> None:
        revision = put(store, prefix + "a", b"\x00\xff")
        for each in (store, other_store):
            assert each.get(prefix + "a", timeout=WAIT)[0] == Entry(prefix + "a", b"\x00\xff", revision, revision)

    def test_a_shared_handle_leads_to_the_same_data_and_is_closed_by_itself(self, store: Store, prefix: str) -> None:
        with store.share() as shared:
            assert shared.identity == store.identity
            assert hash(shared.identity) == hash(store.identity)
            lease = shared.grant(30, timeout=WAIT)
            revision = transact(shared, Put(prefix + "a", b"1", lease.id)).revision
            assert store.get(prefix + "a", timeout=WAIT)[0] == Entry(prefix + "a", b"1", revision, revision, lease.id)
            lease.close(WAIT)
        assert store.get(prefix + "a", timeout=WAIT)[0] is None
        with pytest.raises(ClosedError):
            shared.get(prefix + "a", timeout=WAIT)

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

    def test_a_read_at_a_revision_gives_what_was_there_then_or_says_that_it_can_t(
        self, store: Store, other_store: Store, prefix: str
    ) -> None:
        a, b = prefix + "a", prefix + "b"
        first = put(store, a, b"1")
        second = transact(store, Put(a, b"2"), Put(b, b"2")).revision
        last = transact(store, Delete(a)).revision
        for revision, then in ((first, [b"1"]), (second, [b"2", b"2"]), (last, [b"2"])):
            try:
                whole, one, now = transact(
                    other_store, Get(prefix, prefix=True, revision=revision), Get(a, revision=revision), Get(b)
                ).reads
            except RevisionUnavailableError:
                assert revision < last
                continue
            assert [entry.value for entry in whole] == then
            assert one == tuple(entry for entry in whole if entry.key == a)
            assert [entry.value for entry in now] == [b"2"]
        with pytest.raises(RevisionUnavailableError):
            transact(store, Get(b, revision=last + 1_000_000))

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
