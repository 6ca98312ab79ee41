"""Publishing, fetching, updating and withdrawing through agents."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent, AsyncAgent, DescriptorList, MemoryKind
from trunkline.errors import (
    AgentNameInUseError,
    AgentNotFoundError,
    ClosedError,
    ConfigurationError,
    DeadlineError,
    MemoryRegistrationError,
    NotRegisteredError,
    PeerGoneError,
    SegmentGoneError,
    StoreUnavailableError,
)
from trunkline.store import open_store

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Pair


def test_a_fetch_waits_for_an_agent_that_is_not_there_yet(pair: Pair) -> None:
    later = threading.Timer(0.1, pair.prefill.publish)
    later.start()
    assert pair.decode.fetch("prefill-0", timeout=30).name == "prefill-0"
    later.join()


def test_an_agent_without_names_for_its_memory_publishes_no_catalog(pair: Pair) -> None:
    memory = np.zeros(64, np.uint8)
    with open_store(pair.store) as store, Agent("raw", store=pair.store, devices="lo") as agent:
        agent.register(DescriptorList.of(MemoryKind.DRAM, [(memory.ctypes.data, memory.nbytes, 0)]))
        agent.publish()
        peer = pair.decode.fetch("raw")
        assert peer.keys() == []
        assert store.get("/nixl/agents/.catalog/raw", timeout=5)[0] is None
        assert len(peer.segments(MemoryKind.DRAM)) == 1
        named = agent.register(np.zeros(8), name="kv")
        agent.publish()
        assert pair.decode.fetch("raw").keys() == ["kv"]
        agent.deregister(named, drain=0)
        assert pair.decode.fetch("raw").keys() == []


def test_an_unknown_name_names_similar_ones(pair: Pair) -> None:
    pair.prefill.publish()
    with pytest.raises(AgentNotFoundError, match="prefill-0") as caught:
        pair.decode.fetch("prefil-0", timeout=0.05)
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, TimeoutError)


def test_many_are_fetched_and_followed_in_the_order_of_their_names(pair: Pair) -> None:
    with Agent("prefill-1", store=pair.store, devices="lo") as other:
        for agent in (pair.prefill, other):
            agent.register(np.zeros(8, np.uint8), name="kv")
        other.publish()
        later = threading.Timer(0.1, pair.prefill.publish)
        later.start()
        names = ["prefill-0", "prefill-1", "prefill-0"]
        peers = pair.decode.fetch_many(names)
        later.join()
        assert [peer.name for peer in peers] == names
        assert peers[0] is peers[2] is pair.decode.fetch("prefill-0")
        other.withdraw()
        assert "withdrew" in peers[1].wait_gone(30)


def test_of_many_those_that_are_there_stay_loaded_when_one_is_missing(pair: Pair) -> None:
    pair.prefill.publish()
    with pytest.raises(AgentNotFoundError, match="'nobody'"):
        pair.decode.fetch_many(["nobody", "prefill-0"], timeout=0.1)
    assert pair.decode.peer("prefill-0").gone is None
    assert pair.decode.fetch_many([]) == []
    with pytest.raises(ConfigurationError, match="fetch itself"):
        pair.decode.fetch_many(["prefill-0", "decode-0"])
    with pytest.raises(ConfigurationError, match="list of names"):
        pair.decode.fetch_many("prefill-0")


async def test_an_async_agent_fetches_many(pair: Pair) -> None:
    pair.prefill.publish()
    async with AsyncAgent("async", store=pair.store, devices="lo") as agent:
        assert [peer.name for peer in await agent.fetch_many(["prefill-0"], timeout=30)] == ["prefill-0"]


def test_fetching_again_takes_over_exactly_the_difference(pair: Pair) -> None:
    kept, dropped, added = (np.full(64, value, np.uint8) for value in (1, 2, 3))
    mine = np.zeros(64, np.uint8)
    pair.prefill.register(kept, name="kept")
    gone = pair.prefill.register(dropped, name="dropped")
    pair.prefill.publish()
    local = pair.decode.register(mine)
    peer = pair.decode.fetch("prefill-0")
    running = pair.decode.prepare(local, peer["kept"])
    pair.prefill.deregister(gone, drain=0)
    pair.prefill.register(added, name="added")
    pair.prefill.publish()
    assert pair.decode.fetch("prefill-0") is peer
    assert peer.keys() == ["kept", "added"]
    running.read().wait()
    assert mine.tolist() == [1] * 64
    pair.decode.read(peer["added"], into=local).wait()
    assert mine.tolist() == [3] * 64
    with pytest.raises(SegmentGoneError, match="took the memory named 'dropped' back"):
        peer["dropped"]
    there = DescriptorList.of(MemoryKind.DRAM, [(dropped.ctypes.data, 64, 0)])
    here = DescriptorList.of(MemoryKind.DRAM, [(mine.ctypes.data, 64, 0)])
    with pytest.raises(SegmentGoneError, match="took that memory back"):
        pair.decode.read(there, into=here, peer=peer)


def test_withdrawing_hides_the_agent_until_it_publishes_again(pair: Pair) -> None:
    pair.prefill.publish()
    pair.prefill.withdraw()
    with pytest.raises(AgentNotFoundError):
        pair.decode.fetch("prefill-0", timeout=0.05)
    pair.prefill.publish()
    pair.decode.fetch("prefill-0")


def test_a_new_incarnation_replaces_the_old_peer(pair: Pair) -> None:
    memory = np.zeros(64, np.uint8)
    with Agent("worker", store=pair.store, devices="lo") as worker:
        worker.register(memory, name="kv")
        worker.publish()
        old = pair.decode.fetch("worker")
        view = old["kv"]
    local = pair.decode.register(np.zeros(64, np.uint8))
    with Agent("worker", store=pair.store, devices="lo") as worker:
        worker.register(memory, name="kv")
        worker.publish()
        new = pair.decode.fetch("worker")
        assert new is not old
        assert pair.decode.peer("worker") is new
        assert new.incarnation != old.incarnation
        for use in (lambda: old["kv"], lambda: pair.decode.read(view, into=local), old.connect):
            with pytest.raises(PeerGoneError, match="withdrew"):
                use()
        pair.decode.read(new["kv"], into=local).wait()


def test_two_live_agents_of_one_name(pair: Pair) -> None:
    with pytest.raises(AgentNameInUseError, match="prefill-0"):
        Agent("prefill-0", store=pair.store, devices="lo", timeout=0.05)
    with Agent("prefill-0", store=pair.store, devices="lo", takeover=True) as winner:
        winner.publish()
        assert pair.decode.fetch("prefill-0").incarnation == winner.incarnation


def test_deregistered_memory_leaves_the_book_and_the_agent(pair: Pair) -> None:
    kv = pair.prefill.register(np.zeros(64, np.uint8), name="kv")
    pair.prefill.publish()
    pair.prefill.deregister(kv, drain=0)
    assert pair.decode.fetch("prefill-0").keys() == []
    with pytest.raises(NotRegisteredError, match=r"\(any more\)"):
        pair.prefill.deregister(kv)


def test_closing_withdraws_and_is_idempotent(pair: Pair) -> None:
    pair.prefill.publish()
    pair.prefill.close()
    pair.prefill.close()
    with pytest.raises(AgentNotFoundError):
        pair.decode.fetch("prefill-0", timeout=0.05)
    with pytest.raises(ClosedError, match="make a new Agent"):
        pair.prefill.publish()


def test_waiting_for_a_notification_is_bounded(pair: Pair) -> None:
    with pytest.raises(DeadlineError, match="got no notification"):
        pair.decode.wait_notification(timeout=0.02)


async def test_the_async_agent_has_the_same_methods(store: str) -> None:
    theirs, mine = np.arange(64, dtype=np.uint8), np.zeros(64, np.uint8)
    async with AsyncAgent("a", store=store, devices="lo") as a, AsyncAgent("b", store=store, devices="lo") as b:
        kv = a.register(theirs, name="kv")
        await a.publish()
        peer = await b.fetch("a")
        local = b.register(mine)
        transfer = await b.read(peer["kv"], into=local, notify=b"done", tag="t")
        assert transfer.ok
        note = await a.wait_notification()
        assert (note.sender, note.payload) == ("b", b"done")
        with pytest.raises(DeadlineError):
            await a.wait_notification(timeout=0.02)
        assert [each.tag for each in b.take_finished()] == ["t"]
        np.testing.assert_array_equal(mine, theirs)
        b.notify("a", b"again")
        assert (await a.wait_notification(matches=lambda each: each.payload == b"again")).sender == "b"
        await a.deregister(kv, drain=0)
        await a.withdraw()
        with pytest.raises(AgentNotFoundError):
            await b.fetch("a", timeout=0.05)


def test_the_async_agent_has_every_method_of_the_agent() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(Agent) - public(AsyncAgent) == set()


def test_a_store_that_is_away_holds_up_only_those_who_need_it(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    first = pair.prefill.register(np.zeros(64, np.uint8), name="first")
    pair.prefill.publish()
    asked, away = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> int:
        asked.set()
        away.wait(60)
        raise StoreUnavailableError("no answer")

    membership = pair.prefill._membership
    assert membership is not None
    monkeypatch.setattr(membership.publisher, "publish", hang)
    outcome: list[BaseException] = []

    def deregister() -> None:
        try:
            pair.prefill.deregister(first)
        except StoreUnavailableError as error:
            outcome.append(error)

    thread = threading.Thread(target=deregister, name="deregister")
    thread.start()
    assert asked.wait(60)
    second = threading.Thread(target=pair.prefill.register, args=(np.zeros(64, np.uint8),), name="register")
    second.start()
    second.join(10)
    was_held_up = second.is_alive()
    if not was_held_up:
        with pytest.raises(DeadlineError, match="still publishing"):
            pair.prefill.publish(timeout=0.01)
        with pytest.raises(MemoryRegistrationError, match="'first'"):
            pair.prefill.register(np.zeros(64, np.uint8), name="first")
        with pytest.raises(NotRegisteredError):
            pair.prefill.deregister(first)
    away.set()
    thread.join(60)
    second.join(60)
    assert not was_held_up
    assert len(outcome) == 1
    monkeypatch.undo()
    pair.prefill.deregister(first)  # it stayed registered
