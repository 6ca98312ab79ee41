"""What only the memory store does; the rest is in the contract suite."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from trunkline.errors import ClosedError, ConfigurationError, ForkedError, RevisionUnavailableError
from trunkline.store.contract import Changed, Delete, Get, Put, Snapshot, Transaction
from trunkline.store.plugins.memory import open_store
from trunkline.store.plugins.memory.database import HISTORY, Database
from trunkline.testing.clock import FakeClock
from trunkline.testing.store_liveness import put


def test_a_name_is_needed() -> None:
    with pytest.raises(ConfigurationError):
        open_store("memory://")


def test_names_are_apart_and_data_goes_with_the_last_connection() -> None:
    with open_store("memory://one") as first:
        with open_store("memory://one") as second, open_store("memory://two") as other:
            put(first, "a")
            assert second.get("a", timeout=1)[0] is not None
            assert other.get("a", timeout=1)[0] is None
        assert first.get("a", timeout=1)[0] is not None
    with open_store("memory://one") as again:
        assert again.get("a", timeout=1)[0] is None


def test_one_store_goes_by_one_clock() -> None:
    with open_store("memory://clocks", clock=FakeClock()), pytest.raises(ConfigurationError, match="clock"):
        open_store("memory://clocks")
    with open_store("memory://clocks"):
        pass


def test_the_thread_ends_with_the_last_connection() -> None:
    store = open_store("memory://threads")
    store.grant(60, on_lost=lambda: None, timeout=1)
    assert "trunkline-memory-threads" in {thread.name for thread in threading.enumerate()}
    store.close()
    assert "trunkline-memory-threads" not in {thread.name for thread in threading.enumerate()}


def test_ttl_is_whole_seconds_and_at_least_two() -> None:
    with open_store("memory://ttl") as store:
        assert [store.grant(ttl, timeout=1).ttl for ttl in (0.5, 2.5, 30)] == [2, 3, 30]


def test_an_owner_may_close_the_store_when_told_of_its_loss() -> None:
    clock = FakeClock()
    store, other = (open_store("memory://owner", clock=clock) for _ in range(2))
    closed = threading.Event()

    def close() -> None:
        store.close()
        other.close()
        closed.set()

    lease = store.grant(2, on_lost=close, timeout=1)
    other.revoke(lease.id, timeout=1)
    assert closed.wait(30)
    with pytest.raises(ClosedError):
        other.get("a", timeout=1)


def test_what_history_no_longer_holds_comes_as_a_snapshot() -> None:
    database = Database()
    for number in range(HISTORY + 5):
        database.transact(Transaction((), (Put(f"a/{number % 3}", b""),)))
    oldest = database.revision - HISTORY
    assert isinstance(database.change_after(oldest - 1, "a/", prefix=True), Snapshot)
    change = database.change_after(oldest, "a/", prefix=True)
    assert isinstance(change, Changed)
    assert change.revision == oldest + 1
    assert database.change_after(database.revision, "a/", prefix=True) is None


def test_an_expired_lease_is_gone_for_the_very_next_call() -> None:
    clock = FakeClock()
    with open_store("memory://expiry", clock=clock) as store:
        lease = store.grant(5, timeout=1)
        put(store, "a", b"", lease.id)
        lease.orphan()
        clock.advance(4.9)
        assert store.get("a", timeout=1)[0] is not None
        assert store.time_to_live(lease.id, timeout=1) == pytest.approx(0.1)
        clock.advance(0.2)
        assert store.get("a", timeout=1)[0] is None


def test_who_waits_is_woken_when_a_lease_runs_out() -> None:
    clock = FakeClock()
    with open_store("memory://waiting", clock=clock) as store, ThreadPoolExecutor(1) as threads:
        lease = store.grant(5, timeout=1)
        with store.watch("a", after=put(store, "a", b"", lease.id)) as watch:
            lease.orphan()
            waiting = threads.submit(watch.next, None)
            clock.until_waiting(2)  # the watch and the store's thread
            clock.advance(5)
            assert waiting.result(30) == Changed((), ("a",), 3)


def test_a_child_is_told_that_the_store_is_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store("memory://fork") as store:
        with monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: -1)
            with pytest.raises(ForkedError):
                store.get("a", timeout=1)
            store.close()
        assert store.get("a", timeout=1)[0] is None


def test_every_revision_that_history_holds_can_be_read() -> None:
    """A model: what was there after each change, with what was deleted and what a lease took along."""
    database = Database()
    lease = database.grant(60)
    then = {database.revision: database.select("", prefix=True)}
    for step in range(40):
        key = f"{step % 7}"
        operation = Delete(str(step % 3), prefix=True) if step % 5 == 4 else Put(key, b"%d" % step, lease * (step % 2))
        database.transact(Transaction((), (operation,)))
        then[database.revision] = database.select("", prefix=True)
    database.revoke(lease)
    then[database.revision] = database.select("", prefix=True)
    for revision, entries in then.items():
        assert database.select("", prefix=True, revision=revision) == entries
        assert database.transact(Transaction((), (Get("6", revision=revision),))).reads == (
            tuple(entry for entry in entries if entry.key == "6"),
        )


def test_a_revision_that_history_lost_or_does_not_know_is_said_to_be_so_and_nothing_is_done() -> None:
    database = Database()
    for _ in range(HISTORY + 1):
        database.transact(Transaction((), (Put("a", b""),)))
    for revision in (1, database.revision + 1):
        with pytest.raises(RevisionUnavailableError):
            database.transact(Transaction((), (Put("b", b""), Get("a", revision=revision))))
    assert database.select("b") == ()
    assert database.select("a", revision=2)[0].mod_revision == 2
