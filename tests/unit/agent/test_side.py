"""Sides of transfers that are matched to memory once, and what a backend is then given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent, DescriptorList, MemoryKind
from trunkline.agent.side import PreparedSide, prepare_side, prepare_transfer
from trunkline.backend.contract import Operation
from trunkline.errors import (
    ConfigurationError,
    DescriptorError,
    NoBackendError,
    NotRegisteredError,
    PeerGoneError,
    SegmentNotFoundError,
    ShapeMismatchError,
)
from trunkline.metadata.codec import decode
from trunkline.testing.stepped import SteppedBackend, SteppedRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.transfer.handle import TransferHandle

DRAM = MemoryKind.DRAM
BLOCK = 16


class Both:
    """An agent, and a peer of it in the same process; each has two regions of eight blocks."""

    def __init__(self) -> None:
        self.here = Agent("here", backends=[SteppedBackend("here")])
        self.there = Agent("there", backends=[SteppedBackend("there")])
        self.mine, self.theirs = (np.zeros((2, 8 * BLOCK), np.uint8) for _ in range(2))
        for agent, memory in ((self.here, self.mine), (self.there, self.theirs)):
            agent.register(self.regions(memory))
        self.here.load_peer(self.there.local_metadata())

    @staticmethod
    def regions(memory: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> DescriptorList:
        return DescriptorList.of(DRAM, [(region.ctypes.data, region.nbytes, 0) for region in memory])

    def rows(self, memory: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> DescriptorList:
        """Every block."""
        base = memory.ctypes.data
        return DescriptorList.of(DRAM, [(base + number * BLOCK, BLOCK, 0) for number in range(16)])

    def local(self, rows: DescriptorList | None = None) -> PreparedSide:
        return prepare_side(self.here.engine, rows or self.rows(self.mine))

    def remote(self, rows: DescriptorList | None = None) -> PreparedSide:
        return prepare_side(self.here.engine, rows or self.rows(self.theirs), self.here.peer("there").target)

    def transfer(self, local: PreparedSide, near: object, remote: PreparedSide, far: object) -> TransferHandle:
        return prepare_transfer(
            self.here.engine,
            Operation.READ,
            local,
            remote,
            local_blocks=near,  # type: ignore[arg-type]
            remote_blocks=far,  # type: ignore[arg-type]
        )


@pytest.fixture
def both() -> Iterator[Both]:
    both = Both()
    yield both
    both.here.close()
    both.there.close()


def posted(handle: TransferHandle) -> list[tuple[int, int, int]]:
    request = handle._request
    assert isinstance(request, SteppedRequest)
    posting = request.posting
    columns = (posting.local_address, posting.remote_address, posting.length)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint64, np.uint8, list])
def test_blocks_are_picked_in_the_order_given_and_neighbours_merged(both: Both, kind: type) -> None:
    near, far = [3, 4, 5, 0, 9], [1, 2, 7, 6, 10]
    picked = (near, far) if kind is list else (np.array(near, kind), np.array(far, kind))
    handle = both.transfer(both.local(), picked[0], both.remote(), picked[1])
    mine, theirs = both.mine.ctypes.data, both.theirs.ctypes.data
    expected = [(3, 1, 2), (5, 7, 1), (0, 6, 1), (9, 10, 1)]
    assert posted(handle) == [(mine + a * BLOCK, theirs + b * BLOCK, n * BLOCK) for a, b, n in expected]
    assert (handle.telemetry.blocks, handle.telemetry.descriptors, handle.telemetry.bytes) == (5, 4, 5 * BLOCK)


def test_all_blocks_merge_up_to_the_edge_of_a_region(both: Both) -> None:
    handle = both.transfer(both.local(), None, both.remote(), None)
    assert [length for _, _, length in posted(handle)] == [8 * BLOCK, 8 * BLOCK]


def test_strided_rows_stand_for_their_blocks(both: Both) -> None:
    base = both.theirs.ctypes.data
    rows = [(base, BLOCK, 0, 2 * BLOCK, 4), (base + 8 * BLOCK, BLOCK, 0, BLOCK, 8)]
    remote = both.remote(DescriptorList.of(DRAM, rows))
    assert remote.count == 12
    handle = both.transfer(both.local(), [0, 2, 4, 6], remote, [1, 3, 4, 11])
    assert [(far - base) // BLOCK for _, far, _ in posted(handle)] == [2, 6, 8, 15]
    with pytest.raises(DescriptorError, match=r"index 12 \(at position 0\) is outside this side of 12 blocks"):
        both.transfer(both.local(), [0], remote, [12])


def test_a_strided_row_may_reach_over_regions(both: Both) -> None:
    remote = both.remote(DescriptorList.of(DRAM, [(both.theirs.ctypes.data, BLOCK, 0, BLOCK, 16)]))
    handle = both.transfer(both.local(), [7, 8], remote, [7, 8])
    assert len(posted(handle)) == 2  # not merged: they lie in two segments


def test_what_lies_in_no_segment_is_named(both: Both) -> None:
    stray = DescriptorList.of(DRAM, [(both.mine.ctypes.data, BLOCK, 0), (64, 32, 0)])
    with pytest.raises(NotRegisteredError, match=r"row 1 \(32 bytes of DRAM at 0x40, device 0\) .* registered here"):
        both.local(stray)
    with pytest.raises(SegmentNotFoundError, match="that peer 'there' offers"):
        both.remote(DescriptorList.of(DRAM, [(64, 32, 0, 64, 2)]))


@pytest.mark.parametrize(
    ("near", "far", "error"),
    [
        ([16], [0], DescriptorError),
        ([0], [-1], DescriptorError),
        ([], [], DescriptorError),
        ([[0]], [0], DescriptorError),
        ([0.5], [0], DescriptorError),
        ([0, 1], [0], ShapeMismatchError),
    ],
)
def test_blocks_that_are_not_there(both: Both, near: object, far: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        both.transfer(both.local(), near, both.remote(), far)


def test_two_sides_must_be_one_of_each_and_fit(both: Both) -> None:
    local, remote = both.local(), both.remote()
    for one, other in ((local, local), (remote, remote), (remote, local)):
        with pytest.raises(ShapeMismatchError, match="a local and a remote side"):
            both.transfer(one, [0], other, [0])
    short = both.remote(DescriptorList.of(DRAM, [(both.theirs.ctypes.data, 8, 0)]))
    with pytest.raises(ShapeMismatchError, match="block 0 is 16 bytes here and 8 bytes at the peer"):
        both.transfer(local, [0], short, [0])


def test_memory_that_was_taken_back_is_noticed(both: Both) -> None:
    local, remote = both.local(), both.remote()
    handle = both.transfer(local, [8], remote, [8])
    region = DescriptorList.of(DRAM, [(both.mine[1].ctypes.data, both.mine[1].nbytes, 0)])
    both.here.deregister(region)
    with pytest.raises(NotRegisteredError):
        both.transfer(local, [8], remote, [8])
    with pytest.raises(NotRegisteredError):
        handle.post()
    both.here.register(region)
    both.transfer(local, [8], remote, [8])
    both.here.unload_peer("there")
    with pytest.raises(PeerGoneError):
        both.transfer(local, [8], remote, [8])


def test_an_agent_without_backends_has_no_sides() -> None:
    with (
        Agent("bare", backends=()) as bare,
        pytest.raises(NoBackendError, match="agent 'bare' has no backend"),
    ):
        prepare_side(bare.engine, DescriptorList.of(DRAM, [(64, 32, 0)]))


def test_an_agent_is_a_peer_of_its_own(both: Both) -> None:
    me = both.here.peer("here")
    extra = np.zeros(64, np.uint8)
    rows = DescriptorList.of(DRAM, [(extra.ctypes.data, 64, 0)])
    assert me.offers(both.rows(both.mine))
    assert not me.offers(rows)
    registered = both.here.register(rows)
    assert both.here.peer("here") is me
    assert me.offers(rows)
    side = prepare_side(both.here.engine, rows, me.target)
    handle = both.transfer(prepare_side(both.here.engine, rows), None, side, None)
    both.here.deregister(registered)
    assert not me.offers(rows)
    with pytest.raises(NotRegisteredError):
        handle.post()
    assert "here" not in [peer.name for peer in both.here._peers.all()]


def test_another_message_stays_for_later_rounds(both: Both) -> None:
    sent = []
    handle = prepare_transfer(both.here.engine, Operation.READ, both.local(), both.remote(), notify=b"one")
    for message in (None, b"two", None):
        handle.post(message)
        request = handle._request
        assert isinstance(request, SteppedRequest)
        request.complete()
        handle.wait()
        backend = both.here.engine.backends["STEPPED"]
        assert isinstance(backend, SteppedBackend)
        sent.append(backend.sent[-1][1])
    assert [payload.split(b"msg")[1][8:-1] for payload in sent] == [b"one", b"two", b"two"]


def test_a_backend_may_come_later() -> None:
    with Agent("late", backends=()) as agent:
        memory = np.arange(64, dtype=np.uint8)
        rows = DescriptorList.of(DRAM, [(memory.ctypes.data, 64, 0)])
        with pytest.raises(NoBackendError):
            agent.register(rows)
        agent.create_backend("loopback")
        with pytest.raises(ConfigurationError, match="agent 'late' has a backend 'LOOPBACK' already"):
            agent.create_backend("Loopback")
        view = agent.register(memory)
        agent.read(view[:32], into=view[32:]).wait()
        assert memory[32:].tolist() == list(range(32))


def test_a_part_of_the_metadata_adds_to_what_is_loaded(both: Both) -> None:
    regions = both.regions(both.theirs)
    both.here.unload_peer("there")
    both.here.load_peer(both.there.local_metadata([], connection_info=True))
    peer = both.here.peer("there")
    for number in (0, 1):
        part = both.there.local_metadata(regions.select([number]), connection_info=False)
        assert decode(part).connections == {}
        assert not peer.offers(regions.select([number]))
        both.here.load_peer(part, extend=True)
        assert peer.offers(regions.select([number]))
    assert peer.offers(regions)
    both.here.load_peer(part)
    assert not peer.offers(regions)
    both.here.unload_peer("there")
    assert not peer.offers(regions.select([1]))
