"""Agents on a real etcd keep each other up to date: no call but the first fetch."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline import (
    Agent,
    AsyncAgent,
    DescriptorList,
    LeaveReason,
    MemoryKind,
    PeerJoined,
    PeerLeft,
    PeerUpdated,
    Synced,
)
from trunkline.errors import (
    ConfigurationError,
    NoBackendError,
    NotRegisteredError,
    PeerDrainingError,
    PeerGoneError,
    PeerIncompatibleError,
    SegmentGoneError,
    SegmentNotFoundError,
)
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trunkline import DirectoryWatch

    Open = Callable[..., Agent]

PATIENCE = 30.0


@pytest.fixture
def start(etcd_endpoint: str, namespace: str) -> Iterator[Open]:
    """Open agents in a namespace of the test's own."""
    opened: list[Agent] = []

    def open_agent(name: str, **options: Any) -> Agent:
        opened.append(Agent(name, store=etcd_endpoint, namespace=namespace, devices="lo", timeout=PATIENCE, **options))
        return opened[-1]

    yield open_agent
    for agent in opened:
        agent.close(drain=0)


def take(watch: DirectoryWatch, count: int) -> list[Any]:
    events = [watch.next(PATIENCE) for _ in range(count)]
    assert None not in events, events
    return events


def filled(value: int) -> np.ndarray[Any, Any]:
    return np.full(64, value, np.uint8)


def test_a_watch_tells_who_is_there_and_who_comes_changes_and_goes(start: Open) -> None:
    decode, first = start("decode"), start("prefill-0", attributes={"role": "prefill"})
    first.publish()
    other = start("other")
    other.publish()
    eventually(lambda: set(decode.peers()) == {"prefill-0", "other"})
    with decode.watch("prefill-*", role="prefill") as watch:
        joined, synced = take(watch, 2)
        assert isinstance(joined, PeerJoined)
        assert (joined.name, joined.agent.attributes, joined.agent.incarnation) == (
            "prefill-0",
            {"role": "prefill"},
            first.incarnation,
        )
        assert synced == Synced()
        first.register(filled(1), name="kv")
        first.publish()
        (updated,) = take(watch, 1)
        assert isinstance(updated, PeerUpdated)
        assert (updated.label, updated.generation) == ("metadata", 2)
        first.update_attributes({"role": "decode"})
        (left,) = take(watch, 1)
        assert isinstance(left, PeerLeft)
        assert left.reason is LeaveReason.UNMATCHED
        first.update_attributes({"role": "prefill"})
        assert isinstance(take(watch, 1)[0], PeerJoined)
        first.withdraw()
        assert [event.reason for event in take(watch, 1)] == [LeaveReason.WITHDRAWN]
        first.publish()
        assert isinstance(take(watch, 1)[0], PeerJoined)
        first.close()
        assert [event.reason for event in take(watch, 1)] == [LeaveReason.WITHDRAWN]
    assert decode.peers().age == 0.0
    assert decode.peers().is_synced


async def test_a_watch_in_an_event_loop(start: Open, etcd_endpoint: str, namespace: str) -> None:
    start("prefill-0").publish()
    seen: list[str] = []
    async with AsyncAgent("decode", store=etcd_endpoint, namespace=namespace, devices="lo") as decode:
        async with asyncio.timeout(PATIENCE), decode.watch() as watch:
            async for event in watch:
                seen.append(type(event).__name__)
                if isinstance(event, Synced):
                    await decode.publish()
                    start("prefill-1").publish()
                elif getattr(event, "name", "") == "prefill-1":
                    break
        assert sorted(seen) == ["PeerJoined", "PeerJoined", "Synced"]
        await decode.drain()
        assert decode.health().is_live
        assert not decode.health().is_ready


def test_publications_reach_those_who_loaded_the_agent_by_themselves(start: Open) -> None:
    prefill, decode = start("prefill"), start("decode")
    kept, taken = prefill.register(filled(1), name="kept"), prefill.register(filled(2), name="taken")
    prefill.publish()
    peer = decode.fetch("prefill")
    memory = filled(0)
    local = decode.register(memory)
    pair, gone = decode.prepare(local, peer["kept"]), decode.prepare(local, peer["taken"])
    handle = pair.read().wait()
    prefill.register(filled(3), name="new")
    prefill.publish()
    eventually(lambda: "new" in peer)
    decode.read(peer["new"], into=local).wait()
    assert (memory == 3).all()
    prefill.deregister(taken)
    eventually(lambda: "taken" not in peer)
    handle.post().wait()
    assert (memory == 1).all()
    with pytest.raises(SegmentGoneError):
        gone.read()
    with pytest.raises(SegmentGoneError):
        _ = peer["taken"]
    assert decode.peer("prefill") is peer
    prefill.deregister(kept)
    prefill.withdraw()
    assert "withdrew" in peer.wait_gone(PATIENCE)
    with pytest.raises(PeerGoneError):
        handle.post()
    prefill.publish()
    eventually(lambda: decode.peer("prefill") is not peer)
    decode.read(decode.peer("prefill")["new"], into=local).wait()


def test_a_second_name_for_the_same_memory_reaches_peers_too(start: Open) -> None:
    prefill, decode = start("prefill"), start("decode")
    memory = filled(1)
    prefill.register(memory, name="one")
    prefill.publish()
    peer = decode.fetch("prefill")
    prefill.register(memory, name="two")
    prefill.publish()
    eventually(lambda: "two" in peer)
    assert peer["two"].address == peer["one"].address


def test_labels_add_up_and_go_one_by_one(start: Open) -> None:
    prefill, decode = start("prefill"), start("decode")
    one, two = prefill.register(filled(1), name="one"), prefill.register(filled(2), name="two")
    prefill.register(filled(3), name="three")
    with pytest.raises(ConfigurationError, match="full set"):
        prefill.publish(segments=[one])
    with pytest.raises(ConfigurationError, match="neither segments nor connection info"):
        prefill.publish(label="nothing")
    prefill.publish(label="conn_info_1", connection_info=True, segments=[one])
    prefill.publish(label="more", segments=[two])
    with pytest.raises(NoBackendError, match="connection info first"):
        decode.fetch("prefill", label="more")
    peer = decode.fetch("prefill", label="conn_info_1")
    memory = filled(0)
    local = decode.register(memory)
    decode.read(peer["one"], into=local).wait()
    with pytest.raises(SegmentNotFoundError):
        decode.read(peer["two"], into=local)
    assert decode.fetch("prefill", label="more") is peer
    decode.read(peer["two"], into=local).wait()
    assert (memory == 2).all()
    with pytest.raises(SegmentNotFoundError):
        decode.read(peer["three"], into=local)
    view = peer["two"]
    prefill.withdraw(label="more")
    eventually(lambda: peer.labels == ("conn_info_1",))
    with pytest.raises(SegmentGoneError):
        decode.read(view, into=local)
    decode.read(peer["one"], into=local).wait()
    prefill.publish(label="more", segments=[two, one])
    eventually(lambda: len(peer.labels) == 2)
    prefill.deregister(two)
    with pytest.raises(NotRegisteredError):
        prefill.publish(label="more", segments=[two])
    eventually(lambda: "two" not in peer)
    decode.read(peer["one"], into=local).wait()
    assert peer.gone is None


def test_incompatible_agents_are_refused_field_by_field(start: Open) -> None:
    prefill, decode = start("prefill", attributes={"model": "llama", "layout": "NHD"}), start("decode")
    prefill.register(filled(1), name="kv")
    prefill.publish()
    with pytest.raises(
        PeerIncompatibleError, match=r"layout: wanted 'HND', it has 'NHD'; dtype: .* it has none"
    ) as got:
        decode.fetch("prefill", require={"model": "llama", "layout": "HND", "dtype": "BF16"})
    assert got.value.differences == {"layout": ("HND", "NHD"), "dtype": ("BF16", None)}
    peer = decode.fetch("prefill", require={"model": "llama"})
    prefill.close()
    with start("prefill", attributes={"model": "qwen"}) as successor:
        successor.publish()
        with decode.watch() as watch:
            while not isinstance(watch.next(PATIENCE), PeerJoined):
                pass
        assert peer.gone
        with pytest.raises(PeerIncompatibleError, match="qwen"):
            decode.peer("prefill")


def test_new_incarnations_are_loaded_on_demand_only_if_wanted_so(start: Open) -> None:
    decode = start("decode", reload=False)
    with start("prefill") as first:
        first.publish()
        peer = decode.fetch("prefill")
    with start("prefill") as second, decode.watch() as watch:
        second.publish()
        while not isinstance(watch.next(PATIENCE), PeerJoined):
            pass
        assert decode.peer("prefill") is peer
        with pytest.raises(PeerGoneError):
            peer.connect()
        assert decode.fetch("prefill").incarnation == second.incarnation


def test_who_drains_gets_nothing_new_and_what_runs_ends(start: Open) -> None:
    prefill, decode = start("prefill"), start("decode")
    prefill.register(filled(1), name="kv")
    prefill.publish()
    decode.publish()
    peer, local = decode.fetch("prefill"), decode.register(filled(0))
    handle = decode.read(peer["kv"], into=local).wait()
    assert prefill.health().is_ready
    prefill.drain()
    assert (prefill.health().is_live, prefill.health().is_ready) == (True, False)
    eventually(lambda: decode.peers()["prefill"].state == "draining")
    posts: list[Callable[[], object]] = [handle.post, lambda: decode.read(peer["kv"], into=local)]
    for post in posts:
        with pytest.raises(PeerDrainingError, match="going away"):
            post()
    decode.notify(peer, b"bye")
    assert prefill.wait_notification().payload == b"bye"
    far = prefill.fetch("decode")
    assert far.gone is None


def test_raw_ranges_can_be_parts_too(start: Open) -> None:
    prefill, decode = start("prefill"), start("decode")
    memory = filled(5)
    prefill.register(memory)
    part = DescriptorList.of(MemoryKind.DRAM, [(memory.ctypes.data, 8, 0)])
    prefill.publish(label="raw", connection_info=True, segments=part)
    peer = decode.fetch("prefill", label="raw")
    assert len(peer.segments(MemoryKind.DRAM)) == 1


def test_a_name_is_its_own(start: Open) -> None:
    """Agents of one process share a watch of the store; each tells of the others only."""
    agents = [start(f"agent-{uuid.uuid4().hex[:4]}") for _ in range(3)]
    for agent in agents:
        agent.publish()
    names = {agent.name for agent in agents}
    for agent in agents:
        eventually(lambda agent=agent: set(agent.peers()) == names - {agent.name})  # type: ignore[misc]
