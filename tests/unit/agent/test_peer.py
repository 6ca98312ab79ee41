"""What a peer says of its memory by name, also of names it took back."""

from __future__ import annotations

import pytest

from trunkline.agent import peer as module
from trunkline.agent.peer import Peer
from trunkline.agent.record import PeerRecord
from trunkline.errors import PeerGoneError, SegmentGoneError, SegmentNotFoundError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.catalog import Catalog, TensorEntry
from trunkline.metadata.model import AgentMetadata
from trunkline.transfer.target import Target


def catalog(*names: str, **groups: tuple[str, ...]) -> Catalog:
    entries = [TensorEntry(name, MemoryKind.DRAM, "U8", (8,), 4096, 8, 0) for name in names]
    return Catalog(tuple(entries), groups)


def peer_with(offered: Catalog | None) -> Peer:
    record = PeerRecord(AgentMetadata("prefill-0", {"UCX": b"address"}), "0" * 32, offered)
    return Peer(Target("prefill-0"), record, timeout=1.0)


def test_a_name_that_was_taken_back_is_gone_until_it_is_offered_again() -> None:
    peer = peer_with(catalog("flags", "kv/0", "kv/1", kv=("kv/0", "kv/1")))
    assert peer.keys() == ["kv", "flags"]
    peer.catalog = catalog("more")
    assert peer.keys() == ["more"]
    for name in ("flags", "kv", "kv/1"):
        assert name not in peer
        with pytest.raises(SegmentGoneError, match=rf"took the memory named '{name}' back; it offers \['more'\] now"):
            peer[name]
    peer.catalog = catalog("flags")
    assert peer["flags"].address == 4096
    peer.catalog = Catalog()
    with pytest.raises(SegmentGoneError, match="it offers none by name now"):
        peer["flags"]
    with pytest.raises(SegmentGoneError):
        peer["kv"]


def test_a_name_that_was_never_offered_is_not_found() -> None:
    peer = peer_with(catalog("flags"))
    peer.catalog = catalog("kv")
    with pytest.raises(SegmentNotFoundError, match="offers no memory named 'weights'") as caught:
        peer["weights"]
    assert not isinstance(caught.value, SegmentGoneError)


def test_only_the_latest_names_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_NAMES", 2)
    peer = peer_with(catalog("first", "second"))
    peer.catalog = catalog("third")
    peer.catalog = catalog()
    with pytest.raises(SegmentNotFoundError) as caught:
        peer["first"]
    assert not isinstance(caught.value, SegmentGoneError)
    for name in ("second", "third"):
        with pytest.raises(SegmentGoneError):
            peer[name]


def test_names_that_are_offered_take_no_place_among_those_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_NAMES", 2)
    peer = peer_with(catalog("gone", "a", "b", "c"))
    for _ in range(2):
        peer.catalog = catalog("a", "b", "c")
    with pytest.raises(SegmentGoneError):
        peer["gone"]


def test_a_peer_without_a_catalog_offers_nothing_by_name() -> None:
    peer = peer_with(None)
    assert (peer.keys(), peer.catalog, peer.labels) == ([], Catalog(), ())
    with pytest.raises(SegmentNotFoundError, match="it offers none by name"):
        peer["kv"]


def test_of_a_peer_that_is_gone_nothing_is_there() -> None:
    peer = peer_with(catalog("kv"))
    peer.bury("withdrawn")
    with pytest.raises(PeerGoneError):
        peer["kv"]
