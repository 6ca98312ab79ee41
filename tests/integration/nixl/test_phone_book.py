"""A real NIXL agent and ours find each other in etcd."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent, DescriptorList, MemoryKind, PeerJoined, PeerLeft
from trunkline.errors import PeerGoneError
from trunkline.metadata.key import NIXL_NAMESPACE
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.nixl.conftest import Nixl

    from trunkline import DirectoryWatch

SCRIPT = Path(__file__).with_name("trunkline_process.py")
SIZE = 4096
NOISE = np.random.default_rng(7).integers(0, 256, 9 << 20, np.uint8)[:SIZE]
"""What the real agent's memory begins with once it is filled with seed 7."""


@pytest.fixture(scope="module", params=[True, False], ids=["namespace set", "namespace unset"])
def place(request: pytest.FixtureRequest) -> str:
    """Where the real agent looks; unset, that is below a double slash."""
    return f"/test/{uuid.uuid4().hex}" if request.param else NIXL_NAMESPACE


@pytest.fixture(scope="module")
def nixl(start_nixl: Callable[..., Nixl], etcd_endpoint: str, place: str) -> Nixl:
    environment = {} if place == NIXL_NAMESPACE else {"NIXL_ETCD_NAMESPACE": place}
    return start_nixl(NIXL_ETCD_ENDPOINTS=etcd_endpoint, **environment)


@pytest.fixture
def name() -> str:
    return f"ours-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def agent(name: str, etcd_endpoint: str, place: str) -> Iterator[Agent]:
    with Agent(name, store=etcd_endpoint, namespace=place, devices="lo", timeout=30) as agent:
        yield agent


def test_it_fetches_ours_and_forgets_it_when_withdrawn(agent: Agent, nixl: Nixl) -> None:
    memory = np.zeros(SIZE, np.uint8)
    agent.register(memory, name="kv")
    nixl.ask("fill", 7)
    rows = [[nixl.ask("address"), SIZE, 0], [memory.ctypes.data, SIZE, 0]]
    for _ in range(2):
        memory[:] = 0
        agent.publish()
        assert nixl.ask("fetch", agent.name)
        assert nixl.ask("transfer", "WRITE", rows[:1], rows[1:], agent.name, "") == "DONE"
        assert np.array_equal(memory, NOISE)
        agent.withdraw()
        assert nixl.ask("forgets", agent.name)


def blocks_at(address: int, count: int) -> DescriptorList:
    """Return blocks of 64 bytes side by side."""
    return DescriptorList.of(MemoryKind.DRAM, [(address + 64 * number, 64, 0) for number in range(count)])


def test_ours_with_more_memory_than_fits_into_a_value_is_reached_by_it_and_reads_its_memory(
    agent: Agent, nixl: Nixl, etcd_endpoint: str, place: str
) -> None:
    """It finds how ours is reached, and no memory: notifications and what ours starts work, its own transfers don't."""
    many = np.zeros(40_000 * 64, np.uint8)
    agent.register(blocks_at(many.ctypes.data, 40_000))
    agent.publish()
    assert len(agent.local_metadata()) > 1 << 20
    assert nixl.ask("fetch", agent.name)
    nixl.ask("notify", agent.name, b"hello".hex())
    note = agent.wait_notification(timeout=30)
    assert (note.sender, note.payload) == (nixl.name, b"hello")
    nixl.ask("publish")
    nixl.ask("fill", 7)
    peer = agent.fetch(nixl.name)
    few = SIZE // 64
    local, remote = blocks_at(many.ctypes.data, few), blocks_at(nixl.ask("address"), few)
    agent.read(remote, into=local, peer=peer).wait()
    assert np.array_equal(many[:SIZE], NOISE)
    nixl.ask("withdraw")
    mine = np.zeros(SIZE, np.uint8)
    with Agent(f"{agent.name}-reader", store=etcd_endpoint, namespace=place, devices="lo", timeout=30) as reader:
        reader.register(mine)
        reader.read(local, into=blocks_at(mine.ctypes.data, few), peer=reader.fetch(agent.name)).wait()
    assert np.array_equal(mine, NOISE)
    agent.withdraw()
    assert nixl.ask("forgets", agent.name)


def test_we_fetch_what_it_published(
    nixl: Nixl, name: str, etcd_endpoint: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no namespace set, ours looks below the double slash too."""
    monkeypatch.delenv("NIXL_ETCD_NAMESPACE", raising=False)
    nixl.ask("publish")
    nixl.ask("fill", 7)
    own = None if place == NIXL_NAMESPACE else place
    memory = np.zeros(SIZE, np.uint8)
    with Agent(name, store=etcd_endpoint, namespace=own, devices="lo", timeout=30) as agent:
        agent.register(memory, name="kv")
        peer = agent.fetch(nixl.name)
        remote = DescriptorList.of(MemoryKind.DRAM, [(nixl.ask("address"), SIZE, 0)])
        local = DescriptorList.of(MemoryKind.DRAM, [(memory.ctypes.data, SIZE, 0)])
        agent.read(remote, into=local, peer=peer).wait()
    nixl.ask("withdraw")
    assert np.array_equal(memory, NOISE)


def test_it_notices_our_death_by_the_lease(nixl: Nixl, name: str, etcd_endpoint: str, place: str) -> None:
    arguments = [sys.executable, str(SCRIPT), name, etcd_endpoint, place, "2"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "published\n"
            assert nixl.ask("fetch", name)
        finally:
            process.kill()
    assert nixl.ask("forgets", name)


def events_until(watch: DirectoryWatch, kind: type, name: str) -> list[object]:
    """Return the events of an agent up to the first of a kind, that one included."""
    seen: list[object] = []
    while not (seen and isinstance(seen[-1], kind)):
        event = watch.next(30)
        assert event is not None, f"no {kind.__name__}, only {seen}"
        if getattr(event, "name", None) == name:
            seen.append(event)
    return seen


def test_a_real_agent_is_watched_loaded_again_and_gone(
    agent: Agent, start_nixl: Callable[..., Nixl], etcd_endpoint: str, place: str
) -> None:
    """It has no lease: its death is not seen in etcd, but its next start, its publications and its withdrawal are."""
    environment = {} if place == NIXL_NAMESPACE else {"NIXL_ETCD_NAMESPACE": place}
    first = start_nixl(NIXL_ETCD_ENDPOINTS=etcd_endpoint, **environment)
    local = agent.register(np.zeros(SIZE, np.uint8))
    with agent.watch(include_nixl=True) as watch, agent.watch() as plain:
        first.ask("publish")
        (joined,) = events_until(watch, PeerJoined, first.name)
        assert isinstance(joined, PeerJoined)
        assert joined.agent.is_nixl
        old = agent.fetch(first.name)
        first.kill()
        second = start_nixl(first.name, NIXL_ETCD_ENDPOINTS=etcd_endpoint, **environment)
        second.ask("fill", 7)
        second.ask("publish")
        left, *_ = events_until(watch, PeerJoined, first.name)
        assert isinstance(left, PeerLeft)
        eventually(lambda: agent.peer(first.name) is not old and agent.peer(first.name).gone is None)
        new = agent.peer(first.name)
        remote = DescriptorList.of(MemoryKind.DRAM, [(second.ask("address"), SIZE, 0)])
        mine = DescriptorList.of(MemoryKind.DRAM, [(local.address, SIZE, 0)])
        agent.read(remote, into=mine, peer=new).wait()
        with pytest.raises(PeerGoneError):
            agent.read(remote, into=mine, peer=old)
        second.ask("withdraw")
        assert isinstance(events_until(watch, PeerLeft, first.name)[-1], PeerLeft)
        assert new.wait_gone(30)
        told = iter(lambda: plain.next(0), None)
        assert first.name not in {getattr(event, "name", None) for event in told}
