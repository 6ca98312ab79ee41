"""A real NIXL agent and ours move each other's bytes: metadata goes by the side channel."""

from __future__ import annotations

import functools
import hashlib
import uuid
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from trunkline import Agent, DescriptorList, MemoryKind, Peer
from trunkline.metadata.codec import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from tests.integration.nixl.conftest import Nixl

SIZE = 9 << 20
"""Bytes of memory on each side, as in nixl_process.py."""
BLOCKS = 2000
BLOCK = 4096
GAP = 64
TIMEOUT = 30.0
PAYLOADS = [b"", bytes(range(256)), b"x" * 20_000]


class Pair(NamedTuple):
    agent: Agent
    memory: NDArray[np.uint8]
    peer: Peer
    nixl: Nixl
    address: int
    """Where the real agent's memory is."""

    def rows(self, base: int, length: int) -> NDArray[np.uint64]:
        """One block of a length, off the start, or with 0 many small ones that don't touch."""
        if length:
            return np.array([[base + 4096, length, 0]], np.uint64)
        start = base + np.arange(BLOCKS, dtype=np.uint64) * np.uint64(BLOCK + GAP)
        return np.stack([start, np.full(BLOCKS, BLOCK, np.uint64), np.zeros(BLOCKS, np.uint64)], 1)

    def both(self, length: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Rows of ours and of the real agent's."""
        return self.rows(self.memory.ctypes.data, length), self.rows(self.address, length)

    def fill(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Fill both memories with different noise and return what they hold."""
        self.nixl.ask("fill", 1)
        self.memory[:] = noise(2)
        return noise(2), noise(1)


@functools.cache
def noise(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)


def moved(base: int, rows: NDArray[np.uint64], source: NDArray[np.uint8], sink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what the sink holds after the blocks went into it; both sides' blocks lie at the same offsets."""
    expected = sink.copy()
    for address, length, _ in rows.tolist():
        part = slice(address - base, address - base + length)
        expected[part] = source[part]
    return expected


@pytest.fixture(scope="module", params=["default", "tcp"])
def pair(request: pytest.FixtureRequest, start_nixl: Callable[..., Nixl]) -> Iterator[Pair]:
    environment = {} if request.param == "default" else {"UCX_TLS": request.param}
    nixl = start_nixl(**environment)
    memory = np.zeros(SIZE, np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        agent = Agent(f"ours-{uuid.uuid4().hex[:8]}", devices="lo", timeout=TIMEOUT)
    with agent:
        agent.register(memory, name="kv")
        assert nixl.ask("load", agent.local_metadata().hex()) == agent.name
        peer = agent.load_peer(bytes.fromhex(nixl.ask("metadata")))
        assert peer.name == nixl.name
        yield Pair(agent, memory, peer, nixl, nixl.ask("address"))


def test_its_metadata_is_written_again_byte_by_byte(pair: Pair) -> None:
    blob = bytes.fromhex(pair.nixl.ask("metadata"))
    assert encode(decode(blob)) == blob


def test_the_entry_for_cross_memory_attach_is_there_and_a_real_agent_passes_over_it(pair: Pair) -> None:
    ours = decode(pair.agent.local_metadata())  # what the real agent loaded, and moves bytes with in the tests below
    assert list(ours.connections) == ["UCX", "CMA"]
    assert {section.backend for section in ours.sections} == {"UCX"}
    assert [each.name for each in pair.agent.backends() if each.is_open] == ["UCX", "CMA"]


def test_it_offers_what_it_registered(pair: Pair) -> None:
    assert pair.peer.incarnation is None
    assert pair.peer.keys() == []
    assert list(pair.peer.segments(MemoryKind.DRAM)) == [(pair.address, SIZE, 0)]


@pytest.mark.parametrize("length", [8, 4096, 65536, 1 << 20, 8 << 20, 0], ids=lambda length: str(length or "2000x4096"))
@pytest.mark.parametrize("operation", ["READ", "WRITE"])
@pytest.mark.parametrize("initiator", ["ours", "nixl"])
def test_bytes_move(pair: Pair, initiator: str, operation: str, length: int) -> None:
    ours, its = pair.fill()
    near, far = pair.both(length)
    if initiator == "ours":
        local, remote = (DescriptorList.of(MemoryKind.DRAM, rows) for rows in (near, far))
        if operation == "READ":
            handle = pair.agent.read(remote, into=local, peer=pair.peer)
        else:
            handle = pair.agent.write(local, to=remote, peer=pair.peer)
        assert handle.wait().telemetry.bytes == near[:, 1].sum()
    else:
        assert pair.nixl.ask("transfer", operation, far.tolist(), near.tolist(), pair.agent.name, "") == "DONE"
    base = pair.memory.ctypes.data
    if (initiator == "ours") == (operation == "READ"):
        ours = moved(base, near, its, ours)
    else:
        its = moved(base, near, ours, its)
    assert np.array_equal(pair.memory, ours)
    assert pair.nixl.ask("digest") == hashlib.sha256(its.data).hexdigest()


@pytest.mark.parametrize("payload", PAYLOADS, ids=len)
def test_notifications_arrive(pair: Pair, payload: bytes) -> None:
    pair.agent.notify(pair.peer, payload)
    assert pair.nixl.ask("notification") == [pair.agent.name, payload.hex()]
    pair.nixl.ask("notify", pair.agent.name, payload.hex())
    notification = pair.agent.wait_notification()
    assert (notification.sender, notification.payload, notification.ok) == (pair.nixl.name, payload, True)


@pytest.mark.parametrize("operation", ["READ", "WRITE"])
def test_notifications_follow_the_data(pair: Pair, operation: str) -> None:
    near, far = pair.both(0)
    local, remote = (DescriptorList.of(MemoryKind.DRAM, rows) for rows in (near, far))
    ours, its = pair.fill()
    if operation == "READ":
        handle = pair.agent.read(remote, into=local, peer=pair.peer, notify=b"\0done")
    else:
        handle = pair.agent.write(local, to=remote, peer=pair.peer, notify=b"\0done")
        its = moved(pair.memory.ctypes.data, near, ours, its)
    assert pair.nixl.ask("notification") == [pair.agent.name, b"\0done".hex()]
    assert pair.nixl.ask("digest") == hashlib.sha256(its.data).hexdigest()
    handle.wait()

    ours, its = pair.fill()
    state = pair.nixl.ask("transfer", operation, far.tolist(), near.tolist(), pair.agent.name, b"\0done".hex())
    notification = pair.agent.wait_notification()
    assert (state, notification.sender, notification.payload) == ("DONE", pair.nixl.name, b"\0done")
    if operation == "WRITE":
        ours = moved(pair.memory.ctypes.data, near, its, ours)
    assert np.array_equal(pair.memory, ours)
