from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.directory.watches import KeyWatches
from trunkline.errors import ClosedError, StoreAuthError
from trunkline.store.contract import Changed, Interrupted, Put, Transaction

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from trunkline.testing.clock import FakeClock
    from trunkline.testing.faulty_store import FaultyStore


def put(store: FaultyStore, *keys: str) -> None:
    store.transact(Transaction((), tuple(Put(key, b"") for key in keys)), timeout=1)


def test_each_key_has_its_events(store: FaultyStore, clock: FakeClock) -> None:
    with KeyWatches(store, ["a", "b"], after=1, clock=clock) as watches:
        put(store, "b")
        put(store, "a", "b", "c")
        seen = [watches.next(30) for _ in range(3)]
        assert watches.next(0) is None
        put(store, "c")
        assert watches.next(0) is None
    news = [(key, event.revision) for key, event in filter(None, seen) if isinstance(event, Changed)]
    assert sorted(news) == sorted([("b", news[-1][1] - 1), ("a", news[-1][1]), ("b", news[-1][1])])


def test_a_reader_that_waits_is_woken_by_any_key(
    store: FaultyStore, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    with KeyWatches(store, ["a", "b"], after=1, clock=clock) as watches:
        for key in ("b", "a", "b"):
            waiting = threads.submit(watches.next, 5)
            clock.until_waiting(1)
            put(store, key)
            news = waiting.result(30)
            assert news is not None
            assert news[0] == key


def test_waiting_ends_with_its_time(store: FaultyStore, clock: FakeClock, threads: ThreadPoolExecutor) -> None:
    with KeyWatches(store, ["a", "b"], after=1, clock=clock) as watches:
        waiting = threads.submit(watches.next, 5)
        clock.until_waiting(1)
        clock.advance(5)
        assert waiting.result(30) is None


def test_an_outage_is_told_with_the_key(store: FaultyStore, clock: FakeClock) -> None:
    store.outages = ["etcd is away"]
    with KeyWatches(store, ["a", "b"], after=1, clock=clock) as watches:
        assert watches.next(1) == ("a", Interrupted("etcd is away"))


def test_an_error_of_one_is_raised(store: FaultyStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    with KeyWatches(store, ["a", "b"], after=1, clock=clock) as watches:

        def refuse(timeout: float | None) -> None:
            raise StoreAuthError("no right to watch")

        monkeypatch.setattr(watches._watches["b"], "next", refuse)
        with pytest.raises(StoreAuthError):
            watches.next(None)


def test_closing_ends_the_watches(store: FaultyStore, clock: FakeClock) -> None:
    watches = KeyWatches(store, ["a"], after=1, clock=clock)
    watches.close()
    with pytest.raises(ClosedError):
        watches.next(0)
