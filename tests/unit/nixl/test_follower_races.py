"""Peers that leave, change or come back while they are being fetched: what NIXL holds in the end is right."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.unit.nixl.conftest import Bench, until
from tests.unit.nixl.fake_agent import FakeAgent

from trunkline.directory.event import PeerJoined, PeerLeft, PeerUpdated
from trunkline.metadata.key import NIXL_NAMESPACE
from trunkline.store.contract import Delete, Put, Transaction
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from trunkline.clock import Deadline
    from trunkline.directory import Publication
    from trunkline.nixl import NixlAdapter, NixlPeer


@contextmanager
def stopped(adapter: NixlAdapter, where: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Fetch the peer in another thread, and hold it where it calls what it is given."""
    is_there, go_on = threading.Event(), threading.Event()

    def stop() -> None:
        is_there.set()
        assert go_on.wait(20)

    where(stop)
    fetching = threading.Thread(target=adapter.fetch, args=("peer",))
    fetching.start()
    assert is_there.wait(20)
    yield
    go_on.set()
    fetching.join(20)


def before_it_is_wanted(adapter: NixlAdapter, stop: Callable[[], None]) -> None:
    fetch = adapter._membership.fetch

    def fetch_and_stop(
        names: Iterable[str], label: str, except_incarnations: Collection[str], deadline: Deadline
    ) -> Iterator[Publication]:
        for publication in fetch(names, label, except_incarnations, deadline):
            stop()
            yield publication

    adapter._membership.fetch = fetch_and_stop  # type: ignore[method-assign]


def before_it_is_loaded(adapter: NixlAdapter, stop: Callable[[], None]) -> None:
    load = adapter._remote_agents.load

    def stop_and_load(publication: Publication) -> NixlPeer:
        stop()
        return load(publication)

    adapter._remote_agents.load = stop_and_load  # type: ignore[method-assign]


def in_nixl(adapter: NixlAdapter, stop: Callable[[], None]) -> None:
    agent = adapter._nixl_agent
    assert isinstance(agent, FakeAgent)

    def stop_once(name: str) -> None:
        assert isinstance(agent, FakeAgent)
        agent.refuses = lambda name: None
        stop()

    agent.refuses = stop_once


@pytest.mark.parametrize("where", [before_it_is_wanted, before_it_is_loaded, in_nixl])
def test_one_that_leaves_while_it_is_fetched_is_removed(
    bench: Bench,
    adapter: NixlAdapter,
    agent: FakeAgent,
    where: Callable[[NixlAdapter, Callable[[], None]], None],
) -> None:
    _, other = bench.peer()
    with adapter.watch() as watch:
        until(watch, PeerJoined, other)
        with stopped(adapter, partial(where, adapter)):
            other.withdraw()
            until(watch, PeerLeft)  # taken before there is anything to remove
            assert agent.loaded == {}
        eventually(lambda: watch.next(0) is None and not agent.loaded)
        assert agent.asked == ["add peer", "remove peer"]


def test_one_that_leaves_while_a_part_of_it_is_fetched_is_removed(
    bench: Bench, adapter: NixlAdapter, agent: FakeAgent
) -> None:
    """It was loaded, and was removed, but what was read before is loaded after that."""
    _, other = bench.peer()
    adapter.fetch("peer")
    with adapter.watch() as watch:
        until(watch, PeerJoined, other)
        with stopped(adapter, partial(before_it_is_wanted, adapter)):
            other.withdraw()
            until(watch, PeerLeft)
            assert agent.loaded == {}
        eventually(lambda: watch.next(0) is None and not agent.loaded)
        assert agent.asked == ["add peer", "remove peer"] * 2


@pytest.mark.parametrize("where", [before_it_is_wanted, before_it_is_loaded, in_nixl])
def test_one_of_nixls_own_that_leaves_while_it_is_fetched_is_removed(
    bench: Bench,
    adapter: NixlAdapter,
    agent: FakeAgent,
    where: Callable[[NixlAdapter, Callable[[], None]], None],
) -> None:
    key = f"{NIXL_NAMESPACE}/peer/metadata"
    put = Put(key, FakeAgent("peer", connection=b"run 1").get_agent_metadata(), 0)
    bench.store.transact(Transaction((), (put,)), timeout=5)
    with adapter.watch(include_nixl=True) as watch:
        until(watch, PeerJoined)
        with stopped(adapter, partial(where, adapter)):
            bench.store.transact(Transaction((), (Delete(key),)), timeout=5)
            until(watch, PeerLeft)
            assert agent.loaded == {}
        eventually(lambda: watch.next(0) is None and not agent.loaded)
        assert agent.asked == ["add peer", "remove peer"]


def test_one_that_comes_back_stays_loaded_before_its_return_is_told(
    bench: Bench, adapter: NixlAdapter, agent: FakeAgent
) -> None:
    _, other = bench.peer()
    adapter.fetch("peer")
    with adapter.watch() as watch:
        until(watch, PeerJoined, other)
        other.withdraw()
        until(watch, PeerLeft)
        with adapter._membership.observer._lock:  # news have to wait
            other.publish()
            adapter.fetch("peer")
            assert watch.next(0) is None
        until(watch, PeerJoined)
        assert agent.asked == ["add peer", "remove peer", "add peer"]


class NoticedLock:
    """A lock that notices whoever has to wait for it."""

    def __init__(self) -> None:
        self.is_waited_for = threading.Event()
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.is_waited_for.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_one_that_changes_while_it_is_loaded_stays_loaded(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    _, other = bench.peer()
    lock = adapter._remote_agents._lock = NoticedLock()  # type: ignore[assignment]
    with adapter.watch() as watch:
        until(watch, PeerJoined, other)
        reader = threading.Thread(target=until, args=(watch, PeerUpdated))
        with stopped(adapter, partial(in_nixl, adapter)):
            other.update_attributes({"role": "decode"})
            reader.start()
            assert lock.is_waited_for.wait(20)
        reader.join(20)
        assert "remove peer" not in agent.asked
        assert (adapter.peer("peer").load, adapter.peer("peer").attributes) == (1, {"role": "decode"})


def test_one_of_nixls_own_that_is_withdrawn_before_it_is_followed_is_removed(
    bench: Bench, adapter: NixlAdapter, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, follow = f"{NIXL_NAMESPACE}/peer/metadata", adapter._membership.follow_nixl

    def withdraw_and_follow(name: str) -> None:
        bench.store.transact(Transaction((), (Delete(key),)), timeout=5)
        follow(name)

    monkeypatch.setattr(adapter._membership, "follow_nixl", withdraw_and_follow)
    put = Put(key, FakeAgent("peer", connection=b"run 1").get_agent_metadata(), 0)
    bench.store.transact(Transaction((), (put,)), timeout=5)
    adapter.fetch("peer")
    with adapter.watch() as watch:
        eventually(lambda: watch.next(0) is None and not agent.loaded)
    assert agent.asked == ["add peer", "remove peer"]
