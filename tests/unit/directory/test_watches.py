from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from trunkline.directory.watches import Watches
from trunkline.errors import StoreAuthError
from trunkline.store.contract import Changed, Put, Snapshot, Transaction

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from trunkline.testing.clock import FakeClock
    from trunkline.testing.faulty_store import FaultyStore


def test_events_of_all_come_to_one_reader(store: FaultyStore, clock: FakeClock) -> None:
    with Watches([store.watch("a"), store.watch("b")], clock) as watches:
        assert [type(watches.next(30)) for _ in range(2)] == [Snapshot, Snapshot]
        for key in ("b", "a"):
            store.transact(Transaction((), (Put(key, b""),)), timeout=1)
            event = watches.next(30)
            assert isinstance(event, Changed)
            assert event.put[0].key == key
        assert watches.next(0) is None


def test_waiting_ends_with_its_time(store: FaultyStore, clock: FakeClock, threads: ThreadPoolExecutor) -> None:
    with Watches([store.watch("a", after=1)], clock) as watches:
        waiting = threads.submit(watches.next, 5)
        clock.until_waiting(2)
        clock.advance(5)
        assert waiting.result(30) is None


def test_an_error_of_one_is_raised(store: FaultyStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = store.watch("a")

    def refuse(timeout: float | None) -> None:
        raise StoreAuthError("no right to watch")

    monkeypatch.setattr(watch, "next", refuse)
    with Watches([watch, store.watch("b", after=1)], clock) as watches, pytest.raises(StoreAuthError):
        watches.next(None)


def test_closing_ends_the_threads(store: FaultyStore, clock: FakeClock) -> None:
    with Watches([store.watch("a"), store.watch("b")], clock):
        assert sum(thread.name == "trunkline-watches" for thread in threading.enumerate()) == 2
    assert not any(thread.name == "trunkline-watches" for thread in threading.enumerate())
