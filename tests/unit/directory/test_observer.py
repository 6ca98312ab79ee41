"""One observer for all of a process: who is told what, and what happens when watches come, go and are refused."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import pytest

from trunkline.directory import sharing as module
from trunkline.directory.event import PeerJoined, PeerLeft, StoreBack, StoreLost, Synced
from trunkline.directory.observer import Observer
from trunkline.directory.sharing import close_observer, open_observer
from trunkline.errors import ClosedError, StoreAuthError
from trunkline.store import open_store
from trunkline.store.contract import Changed, Delete, Interrupted, Put, Snapshot, Transaction
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.directory import Directory
    from trunkline.directory.event import DirectoryEvent
    from trunkline.errors import TrunklineError
    from trunkline.store.contract import Store, Watch, WatchEvent
    from trunkline.testing.clock import FakeClock
    from trunkline.testing.faulty_store import FaultyStore

ONE, TWO = "1" * 32, "2" * 32


@contextmanager
def observing(store: Store, clock: FakeClock) -> Iterator[Observer]:
    observer = Observer(store.share(), "/prod", clock=clock)
    try:
        yield observer
    finally:
        observer.close()


@pytest.fixture
def observer(store: FaultyStore, clock: FakeClock) -> Iterator[Observer]:
    with observing(store, clock) as observer:
        yield observer


class Told:
    """What one subscriber was told."""

    def __init__(self, observer: Observer, *, include_nixl: bool = False) -> None:
        self.events: list[DirectoryEvent] = []
        self.errors: list[TrunklineError] = []
        self.subscription = observer.subscribe(self.events.append, self.errors.append, include_nixl=include_nixl)

    @property
    def kinds(self) -> list[type[DirectoryEvent]]:
        return [type(event) for event in self.events]


def put(store: Store, *keys: str) -> None:
    store.transact(Transaction((), tuple(Put(key, b"blob") for key in keys)), timeout=1)


def delete(store: Store, key: str) -> None:
    store.transact(Transaction((), (Delete(key),)), timeout=1)


class Refusing:
    """A watch that the store interrupts, and then refuses."""

    def __init__(self) -> None:
        self.events: list[WatchEvent] = [Interrupted("asking")]
        self.closed = threading.Event()

    def next(self, timeout: float | None) -> WatchEvent | None:
        del timeout
        if self.closed.is_set():
            raise ClosedError("closed")
        if self.events:
            return self.events.pop()
        raise StoreAuthError("no right to watch")

    def close(self) -> None:
        self.closed.set()

    def __iter__(self) -> Iterator[WatchEvent]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def refuse(observer: Observer, monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    """Have the store refuse to watch one selection."""
    watch = observer.store.watch

    def refusing(key: str, *, prefix: bool, wake: threading.Event) -> Watch:
        return Refusing() if key == refused else watch(key, prefix=prefix, wake=wake)

    monkeypatch.setattr(observer.store, "watch", refusing)


def test_one_watch_serves_all_and_its_thread_ends(observer: Observer, directory: Directory) -> None:
    assert "trunkline-directory" not in [thread.name for thread in threading.enumerate()]
    first = Told(observer)
    eventually(lambda: first.kinds == [Synced])
    directory.open_publisher("a", incarnation=ONE).publish(b"blob")
    eventually(lambda: first.kinds == [Synced, PeerJoined])
    second = Told(observer)
    assert second.kinds == [PeerJoined, Synced]
    observer.unsubscribe(first.subscription)
    observer.unsubscribe(first.subscription)
    directory.open_publisher("b", incarnation=TWO).publish(b"blob")
    eventually(lambda: len(second.events) == 3)
    assert len(first.events) == 2
    assert sorted(observer.view()) == ["a", "b"]
    listing, revision = observer.latest("a")
    assert listing is not None
    assert revision == listing.revision
    assert observer.latest("c") == (None, 0)


def test_nixls_agents_are_watched_while_somebody_asks(observer: Observer, store: FaultyStore) -> None:
    put(store, "/prod/n/", "/prod/n/metadata")
    plain = Told(observer)
    eventually(lambda: plain.kinds == [Synced])
    first, second = (Told(observer, include_nixl=True) for _ in range(2))
    eventually(lambda: first.kinds == second.kinds == [PeerJoined, Synced])
    observer.unsubscribe(first.subscription, include_nixl=True)
    assert second.kinds == [PeerJoined, Synced]
    observer.unsubscribe(second.subscription, include_nixl=True)
    assert plain.kinds == [Synced, PeerJoined, PeerLeft]


@pytest.mark.parametrize("is_heard", [True, False])
def test_a_followed_agent_stays_when_the_watch_of_all_ends(
    observer: Observer, store: FaultyStore, *, is_heard: bool
) -> None:
    put(store, "/prod/n/", "/prod/n/metadata")
    wide = Told(observer, include_nixl=True)
    eventually(lambda: wide.kinds == [PeerJoined, Synced])
    plain = Told(observer)
    observer.follow("/prod/n/")
    if is_heard:
        eventually(lambda: observer._roster.has_heard(["/prod/n/"]))
    observer.unsubscribe(wide.subscription, include_nixl=True)
    observer.follow("/prod/n/")
    observer.unfollow("/prod/n/")
    assert PeerLeft not in plain.kinds
    delete(store, "/prod/n/metadata")
    eventually(lambda: PeerLeft in plain.kinds)
    observer.unfollow("/prod/n/")
    observer.unfollow("/prod/n/")
    assert "/prod/n/" not in observer._watches
    assert observer._users == {}


def test_a_refused_watch_ends_only_what_relies_on_it(observer: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Told(observer)
    eventually(lambda: plain.kinds == [Synced])
    with monkeypatch.context() as patch:
        refuse(observer, patch, "/prod/")
        wide = Told(observer, include_nixl=True)
        eventually(lambda: wide.errors)
    assert isinstance(wide.errors[0], StoreAuthError)
    assert plain.errors == []
    assert plain.kinds == [Synced, StoreLost, StoreBack], "the outage it told of has ended with it"
    assert observer._roster.outage() is None
    again = Told(observer, include_nixl=True)
    eventually(lambda: Synced in again.kinds)


def test_records_that_were_refused_are_watched_again_at_the_next_use(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        refuse(observer, patch, "/prod/.presence/")
        first = Told(observer)
        eventually(lambda: first.errors)
    second = Told(observer)
    eventually(lambda: second.kinds == [Synced])


def test_what_goes_wrong_in_one_subscriber_does_not_reach_the_others(
    observer: Observer, directory: Directory, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: DirectoryEvent) -> None:
        if event == Synced():
            raise RuntimeError("can't take it")

    observer.subscribe(fail, print)
    other = Told(observer)
    directory.open_publisher("a", incarnation=ONE).publish(b"blob")
    eventually(lambda: PeerJoined in other.kinds)
    assert "could not be told" in caplog.text


def test_an_agent_is_told_what_happens_to_its_keys(observer: Observer, store: FaultyStore) -> None:
    told: list[tuple[str, WatchEvent]] = []
    put(store, "/prod/a/", "/prod/.presence/b")

    def tell(selection: str, event: WatchEvent) -> None:
        told.append((selection, event))

    _, revision = store.get("/prod/a/", timeout=1)
    listening = observer.listen("/prod/a/", "/prod/.presence/a", tell, after=revision)
    eventually(lambda: len(told) == 1)
    assert told == [("/prod/.presence/a", Snapshot((), revision))]
    put(store, "/prod/a/metadata")
    eventually(lambda: len(told) == 2)
    selection, change = told[1]
    assert isinstance(change, Changed)
    assert (selection, [entry.key for entry in change.put]) == ("/prod/a/", ["/prod/a/metadata"])
    put(store, "/prod/.presence/a", "/prod/.presence/b")
    eventually(lambda: len(told) == 3)
    delete(store, "/prod/.presence/a")
    eventually(lambda: len(told) == 4)
    changes = [event for _, event in told[2:] if isinstance(event, Changed)]
    assert [[entry.key for entry in change.put] for change in changes] == [["/prod/.presence/a"], []]
    assert [change.deleted for change in changes] == [(), ("/prod/.presence/a",)]
    observer.stop_listening(listening)
    observer.stop_listening(listening)
    put(store, "/prod/a/kv")
    other = Told(observer)
    eventually(lambda: Synced in other.kinds)
    assert len(told) == 4


def test_who_takes_a_name_over_in_one_process_still_hears_of_it(directory: Directory, store: FaultyStore) -> None:
    first = directory.open_publisher("a", incarnation=ONE)
    second = directory.open_publisher("a", incarnation=TWO, takeover=True)
    second.publish(b"blob")
    eventually(lambda: first.is_superseded)
    first.close()
    delete(store, "/prod/.presence/a")
    eventually(lambda: store.get("/prod/.presence/a", timeout=1)[0] is not None)
    second.close()


def test_closing_ends_watches_with_a_reason(observer: Observer) -> None:
    closed: list[bool] = []
    watch = observer.watch("*", {}, on_close=lambda: closed.append(True))
    assert isinstance(watch.next(20), Synced)
    observer.close()
    observer.close()
    with pytest.raises(ClosedError, match="is not watched any more"):
        watch.next()
    watch.close()
    assert closed == [True]
    for use in (observer.view, lambda: observer.subscribe(print, print), lambda: observer.follow("/prod/n/")):
        with pytest.raises(ClosedError):
            use()


def test_a_process_shares_one_observer_of_a_namespace(store: FaultyStore, clock: FakeClock) -> None:
    with open_store("memory://directory", clock=clock) as same, open_store("memory://else", clock=clock) as other:
        first, second = (open_observer(each, "/prod", clock=clock) for each in (store, same))
        assert first is second
        others = [open_observer(other, "/prod", clock=clock), open_observer(store, "/test", clock=clock)]
        assert len({first, *others}) == 3
        close_observer(first)
        assert first.view() == {}
        for observer in (second, *others):
            close_observer(observer)
        close_observer(first)
        with pytest.raises(ClosedError):
            first.view()


def test_a_forked_child_has_observers_of_its_own(
    store: FaultyStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = open_observer(store, "/prod", clock=clock)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_registry", module._registry)
        module._start_afresh()
        close_observer(observer)
    assert observer.view() == {}
    close_observer(observer)
