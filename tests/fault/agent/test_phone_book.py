"""Agents that found each other in etcd: one dies, stands still, drains or changes, or etcd is away."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent
from trunkline.directory.event import LeaveReason, PeerJoined, PeerLeft, PeerSuspect, StoreBack, StoreLost
from trunkline.errors import PeerDrainingError, PeerGoneError, SegmentGoneError
from trunkline.testing.etcd import EtcdServer, etcd_binaries
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fault.agent.conftest import Target

    from trunkline.directory.event import DirectoryEvent
    from trunkline.directory.watch import DirectoryWatch

PATIENCE = 40.0
"""Seconds; far above what anything here takes."""


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """An etcd of the newest version here: what differs between versions is tested without a data path."""
    with EtcdServer(tmp_path_factory.mktemp("etcd"), binary=etcd_binaries()[-1]).start() as server:
        yield server


@pytest.fixture
def namespace() -> str:
    return f"/faults/{uuid.uuid4().hex}"


@pytest.fixture
def start_target(etcd: EtcdServer, namespace: str, open_target: Callable[..., Target]) -> Callable[[], Target]:
    """Start a process whose agent has published."""

    def start() -> Target:
        target = open_target(store=etcd.endpoint, namespace=namespace)
        target.ask("publish")
        return target

    return start


@pytest.fixture
def agent(etcd: EtcdServer, namespace: str) -> Iterator[Agent]:
    with Agent("initiator", store=etcd.endpoint, namespace=namespace, ttl=2.0, devices="lo", grace=0.5) as agent:
        yield agent


def wait_for(watch: DirectoryWatch, *kinds: type[DirectoryEvent]) -> DirectoryEvent:
    """Return the next event of one of these kinds."""
    end = time.monotonic() + PATIENCE
    seen: list[DirectoryEvent] = []
    while time.monotonic() < end:
        event = watch.next(1)
        if isinstance(event, kinds):
            return event
        if event is not None:
            seen.append(event)
    raise AssertionError(f"none of {kinds}, but {seen}")


def first_bytes(agent: Agent, name: str) -> list[int]:
    """Read some of the target's memory, through whatever peer the agent has of it now."""
    mine = np.zeros(64, np.uint8)
    local = agent.register(mine)
    agent.read(agent.peer("target")[name][:64], into=local).wait(PATIENCE)
    agent.deregister(local, drain=0)
    return sorted(set(mine.tolist()))


def test_a_killed_one_is_told_at_once_and_loaded_again_when_it_is_back(
    agent: Agent, start_target: Callable[[], Target]
) -> None:
    """No lease has to run out for its death, and no call is needed for its return."""
    target = start_target()
    with agent.watch("target") as watch:
        former = agent.fetch("target", timeout=PATIENCE)
        assert first_bytes(agent, "memory") == [1]
        wait_for(watch, PeerJoined)
        target.kill()
        left = wait_for(watch, PeerLeft)
        assert isinstance(left, PeerLeft)
        assert left.reason is LeaveReason.UNREACHABLE
        start_target()
        wait_for(watch, PeerJoined)
        assert agent.peer("target") is not former
        assert first_bytes(agent, "memory") == [1]
        with pytest.raises(PeerGoneError):
            former["memory"]


def test_one_that_stood_still_for_more_than_its_ttl_is_the_same_peer(
    agent: Agent, start_target: Callable[[], Target]
) -> None:
    """Its lease is lost, nothing of what was loaded is: it has one more TTL to come back, and does so by itself."""
    target = start_target()
    with agent.watch("target") as watch:
        peer = agent.fetch("target", timeout=PATIENCE)
        view = peer["memory"]
        assert first_bytes(agent, "memory") == [1]
        wait_for(watch, PeerJoined)
        target.stop()
        wait_for(watch, PeerSuspect, PeerLeft)
        target.resume()
        wait_for(watch, PeerJoined)
        assert agent.peer("target") is peer
        assert peer.gone is None
        local = agent.register(np.zeros(view.shape, np.uint8))
        agent.read(view, into=local).wait(PATIENCE)
        assert target.ask("sessions") > 1


def test_transfers_go_on_while_etcd_is_away(agent: Agent, etcd: EtcdServer, start_target: Callable[[], Target]) -> None:
    """What is known is kept, with its age; who lives is live; and memory published in the outage arrives after it."""
    target = start_target()
    with agent.watch("target") as watch:
        peer = agent.fetch("target", timeout=PATIENCE)
        etcd.kill()
        wait_for(watch, StoreLost)
        assert first_bytes(agent, "memory") == [1]
        eventually(lambda: agent.peers().age > 0)
        assert list(agent.peers()) == ["target"]
        assert agent.health().is_live
        etcd.start()
        wait_for(watch, StoreBack)
        assert agent.peers().age == 0
        target.ask("register", "late", 7)
        target.ask("publish")
        eventually(lambda: "late" in peer, PATIENCE)
        assert first_bytes(agent, "late") == [7]
        assert agent.peer("target") is peer


def test_memory_comes_and_goes_and_a_peer_drains(agent: Agent, start_target: Callable[[], Target]) -> None:
    """A loaded peer follows what is published, without a call: more, less, and nothing new while it drains."""
    target = start_target()
    peer = agent.fetch("target", timeout=PATIENCE)
    view = peer["memory"]
    target.ask("register", "more", 5)
    target.ask("publish")
    eventually(lambda: "more" in peer, PATIENCE)
    assert first_bytes(agent, "more") == [5]
    target.ask("deregister")
    eventually(lambda: "memory" not in peer, PATIENCE)
    with pytest.raises(SegmentGoneError):
        peer["memory"]
    local = agent.register(np.zeros(view.shape, np.uint8))
    with pytest.raises(SegmentGoneError):
        agent.read(view, into=local)
    target.ask("drain")
    small = agent.register(np.zeros(64, np.uint8))
    eventually(lambda: agent.peers()["target"].state == "draining", PATIENCE)
    with pytest.raises(PeerDrainingError):
        agent.read(peer["more"], into=small)
