"""Peers as the phone book says they are: what is done in NIXL when a watch is read."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

import pytest
from tests.unit.nixl.conftest import TTL, Bench, until
from tests.unit.nixl.fake_agent import FakeAgent, nixlNotAllowedError

from trunkline.directory.event import LeaveReason, PeerJoined, PeerLeft, PeerSuspect, PeerUpdated, Synced
from trunkline.errors import AgentNotFoundError, BackendError, MetadataDecodeError, StoreUnavailableError
from trunkline.metadata.key import NIXL_NAMESPACE
from trunkline.nixl.follower import RELOAD_TIMEOUT
from trunkline.store.contract import Put, Transaction
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from trunkline.clock import Deadline
    from trunkline.nixl import NixlAdapter


def test_a_peer_that_was_restarted_is_loaded_at_the_event(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    _, before = bench.peer()
    adapter.fetch("peer")
    with adapter.watch() as watch:
        until(watch, PeerJoined, before)
        _, now = bench.peer(run=2)
        eventually(lambda: [each.incarnation for each in adapter.listings().values()] == [now.incarnation])
        assert agent.asked == ["add peer"]  # nothing is done behind the application's back
        *_, left, _ = until(watch, PeerJoined, now)
        assert isinstance(left, PeerLeft)
        assert (left.agent.incarnation, left.reason) == (before.incarnation, LeaveReason.SUPERSEDED)
        assert agent.asked == ["add peer", "remove peer", "add peer"]
        peer = adapter.peer("peer")
        assert (peer.incarnation, peer.load) == (now.incarnation, 2)


def test_a_peer_that_died_is_removed_and_loaded_when_it_comes_back(
    bench: Bench, adapter: NixlAdapter, agent: FakeAgent
) -> None:
    _, before = bench.peer()
    adapter.fetch("peer")
    with adapter.watch() as watch:
        until(watch, PeerJoined, before)
        bench.vanish(before)
        left = until(watch, PeerLeft)[-1]
        assert isinstance(left, PeerLeft)
        assert left.reason is LeaveReason.EXPIRED
        assert not agent.loaded
        assert not adapter.peers()
        _, now = bench.peer(run=2)
        until(watch, PeerJoined, now)
        assert list(agent.loaded) == ["peer"]


def test_a_suspect_stays_loaded(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    _, before = bench.peer()
    adapter.fetch("peer")
    with adapter.watch() as watch:
        until(watch, PeerJoined, before)
        adapter._membership.observer.excuse()  # the store was away
        bench.vanish(before)
        until(watch, PeerSuspect)
        assert list(agent.loaded) == ["peer"]
        bench.clock.advance(TTL + 0.1)
        until(watch, PeerLeft)
        assert agent.loaded == {}


def test_a_suspect_is_not_waited_for(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    """It was removed by the application meanwhile, as after a broken connection."""
    _, before = bench.peer()
    adapter.fetch("peer")
    with adapter.watch() as watch:
        until(watch, PeerJoined, before)
        adapter._remote_agents.remove("peer")
        adapter._membership.observer.excuse()
        bench.vanish(before)
        until(watch, PeerSuspect)
        assert agent.asked == ["add peer", "remove peer"]


def test_what_a_peer_publishes_anew_is_loaded(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    peer, other = bench.peer()
    adapter.fetch("peer")
    with adapter.watch() as watch:
        until(watch, PeerJoined, other)
        peer.own[0x2000] = b"more"
        other.publish()
        until(watch, PeerUpdated)
        assert agent.asked == ["add peer"] * 2
        del peer.own[0x1000]
        other.publish()
        until(watch, PeerUpdated)
        assert agent.asked[2:] == ["remove peer", "add peer"]
        assert agent.loaded == {"peer": {0x2000: b"more"}}
        other.update_attributes({"role": "decode"})
        until(watch, PeerUpdated)
        assert adapter.peer("peer").attributes == {"role": "decode"}
        assert len(agent.asked) == 4
        other.withdraw()
        until(watch, PeerLeft)
        assert agent.loaded == {}
        other.publish()
        until(watch, PeerJoined)
        assert agent.loaded == {"peer": {0x2000: b"more"}}


def test_labels_of_a_peer_come_and_go(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    peer, other = bench.peer()
    peer.own[0x2000] = b"more"
    other.publish(label="part", descs=[0x2000])
    adapter.fetch("peer")
    assert adapter.fetch("peer", label="part").labels == ("metadata", "part")
    with adapter.watch() as watch:
        until(watch, PeerJoined, other)
        other.withdraw(label="part")
        eventually(lambda: watch.next(0) is None and agent.loaded == {"peer": {0x1000: b"key"}})
        other.publish(label="part", descs=[0x2000])
        eventually(lambda: watch.next(0) is None and agent.loaded == {"peer": {0x1000: b"key", 0x2000: b"more"}})


def test_a_watch_keeps_peers_up_to_date_of_which_it_does_not_tell(
    bench: Bench, adapter: NixlAdapter, agent: FakeAgent
) -> None:
    peer, other = bench.peer(role="decode")
    adapter.fetch("peer")
    with adapter.watch("prefill-*", role="prefill") as watch:
        until(watch, Synced)
        peer.own[0x2000] = b"more"
        reader = threading.Thread(target=watch.next, args=(None,))  # is not told of it
        reader.start()
        other.publish()
        eventually(lambda: 0x2000 in agent.loaded["peer"])
        other.update_attributes({"role": "prefill"})
        bench.adapt(FakeAgent("prefill-0"), role="prefill").publish()
        reader.join()


def test_watches_select(bench: Bench, adapter: NixlAdapter) -> None:
    with adapter.watch("p*", role="decode") as watch:
        until(watch, Synced)
        bench.adapt(FakeAgent("other"), role="decode").publish()
        _, peer = bench.peer(role="decode")
        until(watch, PeerJoined, peer)
        peer.update_attributes({"role": "prefill"})
        left = until(watch, PeerLeft)[-1]
        assert isinstance(left, PeerLeft)
        assert left.reason is LeaveReason.UNMATCHED


async def test_in_an_event_loop(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    bench.peer()
    adapter.fetch("peer")
    async with adapter.watch() as watch:
        _, now = await asyncio.to_thread(bench.peer, run=2)
        async for event in watch:
            if isinstance(event, PeerJoined) and event.agent.incarnation == now.incarnation:
                break
        assert adapter.peer("peer").load == 2
    assert agent.asked == ["add peer", "remove peer", "add peer"]


def test_what_nixl_refuses_is_tried_again(
    bench: Bench, adapter: NixlAdapter, agent: FakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    bench.peer()
    adapter.fetch("peer")

    def refuse(name: str) -> None:
        raise nixlNotAllowedError("NIXL_ERR_BACKEND")

    with adapter.watch() as watch:
        agent.refuses = refuse
        with caplog.at_level(logging.WARNING):
            _, now = bench.peer(run=2)
            until(watch, PeerJoined, now)
        assert "can't load peer 'peer' again yet" in caplog.text
        assert adapter.peers() == {}
        agent.refuses = lambda name: None
        bench.clock.advance(5)
        eventually(lambda: watch.next(0) is None and "peer" in adapter.peers())


def test_a_store_in_trouble_holds_a_reader_up_for_a_bounded_time(
    bench: Bench, adapter: NixlAdapter, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, other = bench.peer()
    adapter.fetch("peer")
    asked: list[float | None] = []

    def fail(names: object, label: str, except_incarnations: object, deadline: Deadline) -> None:
        asked.append(deadline.remaining())
        raise StoreUnavailableError("away")

    with adapter.watch() as watch:
        until(watch, PeerJoined, other)
        with monkeypatch.context() as patch:
            patch.setattr(adapter._membership, "fetch", fail)
            peer.own[0x2000] = b"more"
            other.publish()
            until(watch, PeerUpdated)
        assert asked == [RELOAD_TIMEOUT]
        assert agent.loaded == {"peer": {0x1000: b"key"}}
        bench.clock.advance(5)
        eventually(lambda: watch.next(0) is None and 0x2000 in agent.loaded["peer"])


def test_what_can_not_be_read_is_removed_and_not_tried_again(
    bench: Bench, adapter: NixlAdapter, agent: FakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    _, other = bench.peer()
    adapter.fetch("peer")
    with adapter.watch() as watch:
        until(watch, PeerJoined, other)
        other._membership.publisher.publish(b"not metadata")
        with caplog.at_level(logging.WARNING):
            until(watch, PeerUpdated)
        assert "can't load peer 'peer' again: " in caplog.text
        assert agent.loaded == {}
        with pytest.raises(MetadataDecodeError):
            adapter.fetch("peer")


def test_a_fetch_that_fails_leaves_nothing_to_follow(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    with pytest.raises(AgentNotFoundError):
        adapter.fetch("peer", timeout=0)
    bench.peer()
    adapter.fetch("peer")
    with pytest.raises(AgentNotFoundError):
        adapter.fetch_many(["peer", "other"], timeout=0)
    assert list(adapter._follower._wanted) == ["peer"]

    def refuse(name: str) -> None:
        raise nixlNotAllowedError("NIXL_ERR_BACKEND")

    agent.refuses = refuse
    adapter.unload("peer")
    with pytest.raises(BackendError):
        adapter.fetch("peer")
    assert adapter._follower._wanted == {}


def test_one_of_nixls_own_is_followed_by_its_keys(bench: Bench, adapter: NixlAdapter, agent: FakeAgent) -> None:
    plain = FakeAgent("peer", connection=b"run 1")

    def put(*, with_marker: bool) -> None:
        marker = (Put(f"{NIXL_NAMESPACE}/peer/", b"", 0),) if with_marker else ()
        value = Put(f"{NIXL_NAMESPACE}/peer/metadata", plain.get_agent_metadata(), 0)
        bench.store.transact(Transaction((), (*marker, value)), timeout=5)

    put(with_marker=True)
    peer = adapter.fetch("peer")
    assert (peer.incarnation, peer.attributes) == (None, {})
    with adapter.watch(include_nixl=True) as watch:
        until(watch, PeerJoined)
        plain.own[0x2000] = b"more"
        put(with_marker=False)
        until(watch, PeerUpdated)
        assert agent.asked == ["add peer"] * 2
        plain = FakeAgent("peer", connection=b"run 2")
        put(with_marker=True)
        until(watch, PeerJoined)
        assert agent.asked[2:] == ["remove peer", "add peer"]
        assert adapter.peer("peer").load == 2
