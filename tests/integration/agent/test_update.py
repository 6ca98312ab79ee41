"""An agent whose memory changes: peers that load its new card get the difference, and what they had goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent, DescriptorList, MemoryKind
from trunkline.errors import SegmentGoneError, SegmentNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

Agents = tuple[Agent, Agent]


@pytest.fixture
def agents() -> Iterator[Agents]:
    with Agent("prefill-0", devices="lo") as prefill, Agent("decode-0", devices="lo") as decode:
        yield prefill, decode


def test_kept_memory_goes_on_and_memory_that_was_taken_back_is_refused(agents: Agents) -> None:
    prefill, decode = agents
    kept, taken, added = (np.full((8, 1024), value, np.uint8) for value in (1, 2, 3))
    mine = np.zeros((8, 1024), np.uint8)
    prefill.register(kept, name="kept")
    offered = prefill.register(taken, name="taken")
    local = decode.register(mine)
    peer = decode.load_peer(prefill.card())

    pairs = {name: decode.prepare(local, peer[name]) for name in ("kept", "taken")}
    handles = {name: pair.read().wait() for name, pair in pairs.items()}
    rows = DescriptorList.of(MemoryKind.DRAM, [(taken.ctypes.data + 1024, 1024, 0)])
    here = DescriptorList.of(MemoryKind.DRAM, [(mine.ctypes.data, 1024, 0)])
    view = peer["taken"]

    prefill.register(added, name="added")
    assert decode.load_peer(prefill.card()) is peer
    decode.read(peer["added"], into=local).wait()
    assert (mine == 3).all()
    for name, value in (("kept", 1), ("taken", 2)):
        handles[name].post().wait()
        assert (mine == value).all()

    prefill.deregister(offered)
    assert decode.load_peer(prefill.card()) is peer
    assert peer.keys() == ["kept", "added"]
    for use in (
        handles["taken"].post,
        pairs["taken"].read,
        lambda: pairs["taken"].write([3], [3]),
        lambda: decode.read(view[2], into=local[2]),
        lambda: decode.read(rows, into=here, peer=peer),
        lambda: peer["taken"],
    ):
        with pytest.raises(SegmentGoneError):
            use()
    with pytest.raises(SegmentNotFoundError) as caught:
        decode.read(DescriptorList.of(MemoryKind.DRAM, [(mine.ctypes.data, 1024, 0)]), into=here, peer=peer)
    assert not isinstance(caught.value, SegmentGoneError)
    handles["kept"].post().wait()
    assert (mine == 1).all()
    pairs["kept"].read([5], [6]).wait()

    prefill.register(taken, name="taken")
    decode.load_peer(prefill.card())
    decode.read(peer["taken"], into=local).wait()
    assert (mine == 2).all()


def test_transfers_of_kept_memory_run_on_through_updates(agents: Agents) -> None:
    prefill, decode = agents
    kept, mine = np.arange(1 << 20, dtype=np.uint8), np.zeros(1 << 20, np.uint8)
    prefill.register(kept, name="kept")
    local = decode.register(mine)
    peer = decode.load_peer(prefill.card())
    handle = decode.read(peer["kept"], into=local).wait()
    others = [np.zeros(4096, np.uint8) for _ in range(20)]
    for round_number, other in enumerate(others):
        mine[:] = 0
        handle.post()
        changing = prefill.register(other, name="changing")
        decode.load_peer(prefill.card())
        handle.wait()
        np.testing.assert_array_equal(mine, kept, err_msg=f"round {round_number}")
        prefill.deregister(changing)
        decode.load_peer(prefill.card())
    assert decode.peer("prefill-0") is peer
    assert peer.gone is None
