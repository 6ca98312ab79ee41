"""Peers over a hand-driven backend: loading, updating, and what a broken connection means."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent, DescriptorList, Peer
from trunkline.agent.record import PeerRecord
from trunkline.errors import (
    AgentNotFoundError,
    MetadataDecodeError,
    MetadataMismatchError,
    NoBackendError,
    PeerGoneError,
    SegmentGoneError,
    SegmentNotFoundError,
    TransferError,
    UnknownPeerError,
)
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.catalog import Catalog, TensorEntry
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata
from trunkline.testing.stepped import SteppedBackend, SteppedPeer, SteppedRequest
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trunkline.backend.contract import ConnectionInfo

PROMPT = 20.0
INFO = b"stepped"


class Pair:
    def __init__(self) -> None:
        self.store = f"memory://{uuid.uuid4().hex}"
        self.backend = SteppedBackend("decode-0")
        self.prefill = self.open_prefill()
        self.decode = Agent("decode-0", store=self.store, backends=[self.backend])
        self.theirs = np.arange(64, dtype=np.uint8)
        self.mine = np.zeros(64, np.uint8)
        self.offered = self.prefill.register(self.theirs, name="kv")
        self.prefill.publish()
        self.local = self.decode.register(self.mine)
        self.peer = self.decode.fetch("prefill-0")

    def open_prefill(self) -> Agent:
        return Agent("prefill-0", store=self.store, backends=[SteppedBackend("prefill-0")])

    def link(self, peer: Peer) -> SteppedPeer:
        link = peer.target.links["STEPPED"]
        assert isinstance(link, SteppedPeer)
        return link

    def load(
        self,
        label: str,
        starts: Sequence[int],
        *,
        name: str = "remote-0",
        incarnation: str | None = "1" * 32,
        info: bytes | None = None,
        catalog: Catalog | None = None,
        key: bytes = b"key 1",
    ) -> Peer:
        """Load segments of 8 bytes as one label of a peer that is nowhere."""
        rows = np.array([(start, 8, 0) for start in starts], np.uint64)
        section = SectionMetadata("STEPPED", MemoryKind.DRAM, rows, RemoteKeys.of([key] * len(starts)))
        connections = {} if info is None else {"STEPPED": info}
        metadata = AgentMetadata(name, connections, (section,) if starts else ())
        record = PeerRecord(metadata, incarnation, catalog, {"of": label}, label)
        return self.decode._peers.load(self.decode.engine, record)

    def drop_label(self, name: str, label: str) -> bool:
        return self.decode._peers.drop_label(self.decode.engine, name, label)

    def close(self) -> None:
        self.decode.close()
        self.prefill.close(drain=0)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def test_a_connection_that_can_be_made_again_costs_one_transfer(pair: Pair) -> None:
    transfer = pair.decode.read(pair.peer["kv"], into=pair.local)
    pair.link(pair.peer).break_connection("Input/output error")
    with pytest.raises(TransferError, match="Input/output error"):
        transfer.wait()
    eventually(lambda: pair.link(pair.peer).failure is None)
    assert pair.peer.gone is None
    transfer.post()
    request = transfer._request
    assert isinstance(request, SteppedRequest)
    request.complete()
    assert transfer.wait().ok
    assert pair.mine.tolist() == pair.theirs.tolist()


def test_a_peer_that_does_not_answer_again_is_gone(pair: Pair) -> None:
    transfer = pair.decode.read(pair.peer["kv"], into=pair.local)
    pair.link(pair.peer).answers = False
    pair.link(pair.peer).break_connection("Connection reset by remote peer")
    assert "unreachable: Connection reset" in pair.peer.wait_gone(PROMPT)
    with pytest.raises(TransferError):
        transfer.wait(PROMPT)
    for use in (lambda: pair.peer["kv"], transfer.post, lambda: pair.decode.notify(pair.peer, b"x"), pair.peer.connect):
        with pytest.raises(PeerGoneError, match="fetch it again"):
            use()
    assert "gone: unreachable" in repr(pair.peer)


def test_a_connection_that_breaks_again_during_its_probe_is_probed_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, connect = pair.link(pair.peer), SteppedPeer.connect

    def connect_and_break(self: SteppedPeer, timeout: float) -> None:
        connect(self, timeout)
        self.answers = False
        self.break_connection("again")

    monkeypatch.setattr(SteppedPeer, "connect", connect_and_break)
    link.break_connection("once")
    assert "unreachable: again" in pair.peer.wait_gone(PROMPT)


def test_fetch_waits_for_the_next_incarnation_of_a_dead_peer(pair: Pair) -> None:
    pair.link(pair.peer).answers = False
    pair.link(pair.peer).break_connection()
    pair.peer.wait_gone(PROMPT)
    with pytest.raises(AgentNotFoundError):
        pair.decode.fetch("prefill-0", timeout=0.02)
    pair.prefill.close(drain=0)
    with pair.open_prefill() as again:
        again.publish()
        fresh = pair.decode.fetch("prefill-0", timeout=PROMPT)
        assert fresh.incarnation == again.incarnation
        assert pair.decode.peer("prefill-0") is fresh


def test_an_update_keeps_what_is_unchanged_and_drops_what_is_gone(pair: Pair) -> None:
    before = pair.peer.target.section.lookup("STEPPED", pair.local.kind)
    added = np.zeros(32, np.uint8)
    pair.prefill.register(added, name="more")
    pair.prefill.publish()
    assert pair.decode.fetch("prefill-0") is pair.peer
    after = pair.peer.target.section.lookup("STEPPED", pair.local.kind)
    assert set(before.slots.tolist()) < set(after.slots.tolist())
    pair.prefill.deregister(pair.offered, drain=0)
    pair.decode.fetch("prefill-0")
    last = pair.peer.target.section.lookup("STEPPED", pair.local.kind)
    assert set(last.slots.tolist()) == set(after.slots.tolist()) - set(before.slots.tolist())
    with pytest.raises(SegmentGoneError):
        pair.peer["kv"]


def test_the_same_range_under_a_new_key_is_loaded_again(pair: Pair) -> None:
    before = pair.peer.target.section.lookup("STEPPED", pair.local.kind).slots.tolist()
    pair.prefill.deregister(pair.offered, drain=0)
    pair.prefill.register(pair.theirs, name="kv")
    pair.prefill.publish()
    pair.decode.fetch("prefill-0")
    after = pair.peer.target.section.lookup("STEPPED", pair.local.kind).slots.tolist()
    assert len(after) == 1
    assert after != before


def test_a_peer_whose_keys_are_refused_is_not_loaded(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.decode.unload_peer("prefill-0")

    def refuse(*_: object) -> None:
        raise MetadataDecodeError("bad key")

    with monkeypatch.context() as patch:
        patch.setattr(SteppedPeer, "load_segments", refuse)
        with pytest.raises(MetadataDecodeError):
            pair.decode.fetch("prefill-0")
    with pytest.raises(UnknownPeerError):
        pair.decode.peer("prefill-0")
    assert pair.decode.fetch("prefill-0")["kv"].nbytes == 64


def starts_of(peer: Peer) -> list[int]:
    segments = peer.target.section.lookup("STEPPED", MemoryKind.DRAM).segments
    return [int(start) for start in segments[:, 0]]


def named(name: str) -> Catalog:
    return Catalog((TensorEntry(name, MemoryKind.DRAM, "U8", (8,), 64, 8, 0),))


def test_labels_of_one_agent_add_up_and_are_dropped_one_by_one(pair: Pair) -> None:
    peer = pair.load("conn", [], info=INFO)
    assert pair.load("a", [64, 128]) is peer
    assert pair.load("b", [128, 192], info=INFO) is peer
    assert (peer.labels, starts_of(peer)) == (("conn", "a", "b"), [64, 128, 192])
    assert pair.load("a", [64, 256]) is peer
    assert starts_of(peer) == [64, 128, 192, 256]
    assert pair.drop_label("remote-0", "b")
    assert starts_of(peer) == [64, 256]
    assert pair.drop_label("remote-0", "b")
    assert pair.drop_label("remote-0", "a")
    assert (peer.labels, starts_of(peer), peer.gone) == (("conn",), [], None)
    assert not pair.drop_label("remote-0", "conn")
    assert peer.gone == "withdrawn"
    assert pair.decode.peer("remote-0") is peer, "it stays as a tombstone"
    assert not pair.drop_label("remote-0", "conn")


def test_a_label_that_is_not_loaded_is_dropped_without_effect(pair: Pair) -> None:
    peer = pair.load("a", [64], info=INFO)
    assert pair.drop_label("remote-0", "b")
    assert (peer.labels, peer.gone, starts_of(peer)) == (("a",), None, [64])


@pytest.mark.parametrize("info", [None, INFO])
def test_metadata_that_cannot_reach_the_peer_needs_it_loaded(pair: Pair, info: bytes | None) -> None:
    with pytest.raises(NoBackendError, match="fetch a label with connection info first"):
        pair.load("a", [64])
    peer = pair.load("conn", [], info=INFO)
    with pytest.raises(NoBackendError, match="fetch a label with connection info first"):
        pair.load("a", [64], incarnation="2" * 32)
    assert pair.decode.peer("remote-0") is peer
    assert peer.gone is None
    assert pair.load("a", [64], info=info) is peer


def test_agents_without_a_common_backend(pair: Pair) -> None:
    record = PeerRecord(AgentMetadata("remote-0", {"OTHER": b"x"}), "1" * 32)
    with pytest.raises(NoBackendError, match=r"have no backend in common \(\['STEPPED'\] here, \['OTHER'\] there\)"):
        pair.decode._peers.load(pair.decode.engine, record)


def test_a_label_whose_connections_are_all_of_other_backends(pair: Pair) -> None:
    record = PeerRecord(AgentMetadata("remote-0", {"OTHER": b"x"}), "1" * 32, label="x")
    with pytest.raises(NoBackendError, match=r"fetch a label with connection info first .*\['OTHER'\] there"):
        pair.decode._peers.load(pair.decode.engine, record)


def test_another_incarnation_replaces_the_peer_with_all_its_labels(pair: Pair) -> None:
    first = pair.load("a", [64], info=INFO)
    pair.load("b", [128])
    second = pair.load("a", [192], info=INFO, incarnation="2" * 32)
    assert "superseded" in str(first.gone)
    assert pair.link(first).is_closed
    assert (second.labels, starts_of(second)) == (("a",), [192])
    assert pair.decode.peer("remote-0") is second


def test_other_connection_info_replaces_the_peer(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pair.load("a", [64], info=INFO)
    monkeypatch.setattr(SteppedBackend, "load_peer", lambda backend, name, _: SteppedPeer(backend, name))
    second = pair.load("b", [128], info=b"moved")
    assert "superseded" in str(first.gone)
    assert starts_of(second) == [128]


def test_metadata_that_came_alone_adds_to_the_incarnation_it_fits(pair: Pair) -> None:
    peer = pair.load("a", [64], info=INFO, catalog=named("kv"))
    for info in (None, INFO):
        assert pair.load("b", [128], incarnation=None, info=info) is peer
    assert (peer.incarnation, peer.attributes) == ("1" * 32, {"of": "a"})
    assert peer.keys() == ["kv"]


def test_the_latest_catalog_counts_whatever_its_label(pair: Pair) -> None:
    peer = pair.load("a", [64], info=INFO, catalog=named("kv"))
    pair.load("b", [128])
    assert (peer.keys(), peer.attributes) == (["kv"], {"of": "b"})
    pair.load("b", [128], catalog=named("more"))
    assert peer.keys() == ["more"]
    pair.load("a", [64], info=INFO, catalog=Catalog())
    assert peer.keys() == []


@pytest.mark.parametrize("incarnation", ["1" * 32, "2" * 32])
def test_what_cannot_be_loaded_changes_nothing(pair: Pair, incarnation: str) -> None:
    peer = pair.load("a", [64, 128], info=INFO, catalog=named("kv"))
    registered = pair.backend.outstanding
    with pytest.raises(MetadataDecodeError):
        pair.load("a", [64, 192], info=INFO, key=b"bad", incarnation=incarnation, catalog=named("evil"))
    assert pair.decode.peer("remote-0") is peer
    assert (peer.gone, peer.keys(), starts_of(peer)) == (None, ["kv"], [64, 128])
    assert not pair.link(peer).is_closed
    assert pair.backend.outstanding == registered


def test_labels_that_contradict_each_other(pair: Pair) -> None:
    peer = pair.load("a", [64], info=INFO, catalog=named("kv"))
    with pytest.raises(MetadataMismatchError, match="labels 'b' and 'a' offer 8 bytes"):
        pair.load("b", [64, 128], key=b"key 2", catalog=named("evil"))
    assert (peer.labels, peer.keys(), starts_of(peer)) == (("a",), ["kv"], [64])


def test_a_peer_that_could_not_be_loaded_leaves_no_link(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    links: list[SteppedPeer] = []
    load_peer = SteppedBackend.load_peer

    def remember(backend: SteppedBackend, name: str, info: ConnectionInfo) -> SteppedPeer:
        links.append(load_peer(backend, name, info))
        return links[-1]

    monkeypatch.setattr(SteppedBackend, "load_peer", remember)
    with pytest.raises(MetadataDecodeError):
        pair.load("a", [64], info=INFO, key=b"bad")
    assert [link.is_closed for link in links] == [True]
    with pytest.raises(UnknownPeerError):
        pair.decode.peer("remote-0")


def test_memory_the_peer_took_back_is_gone_and_other_memory_not_found(pair: Pair) -> None:
    peer = pair.load("a", [pair.theirs.ctypes.data, pair.theirs.ctypes.data + 32], info=INFO, catalog=named("kv"))
    near = DescriptorList.of(MemoryKind.DRAM, [(pair.mine.ctypes.data, 8, 0)])
    kept, taken, never = (
        DescriptorList.of(MemoryKind.DRAM, [(pair.theirs.ctypes.data + offset, 8, 0)]) for offset in (0, 32, 48)
    )
    handles = [pair.decode.read(far, into=near, peer=peer) for far in (kept, taken)]
    for handle in handles:
        request = handle._request
        assert isinstance(request, SteppedRequest)
        request.complete()
        handle.wait()
    prepared = pair.decode.prepare(near, taken, peer=peer)
    pair.load("a", [pair.theirs.ctypes.data], info=INFO)
    assert handles[0].post() is handles[0]
    uses: list[Callable[[], object]] = [
        handles[1].post,
        prepared.read,
        lambda: pair.decode.read(taken, into=near, peer=peer),
    ]
    for use in uses:
        with pytest.raises(SegmentGoneError):
            use()
    with pytest.raises(SegmentNotFoundError) as caught:
        pair.decode.read(never, into=near, peer=peer)
    assert not isinstance(caught.value, SegmentGoneError)


def test_closing_the_agent_buries_its_peers(pair: Pair) -> None:
    pair.decode.close()
    assert pair.peer.wait_gone(0) == "agent 'decode-0' was closed"
    assert pair.link(pair.peer).is_closed


class Second(SteppedBackend):
    name = "SECOND"


def test_a_backend_opened_later_reaches_a_peer_that_is_loaded(pair: Pair) -> None:
    moving = pair.decode.read(pair.peer["kv"], into=pair.local)
    late = Second("decode-0")
    for agent, backend in ((pair.prefill, Second("prefill-0")), (pair.decode, late)):
        agent._memory.adopt(backend)
        agent.engine.add_backend(backend)
    pair.prefill.publish()
    eventually(lambda: len(pair.peer.target.section.lookup("SECOND", MemoryKind.DRAM)) == 1)  # after the link
    assert pair.decode.peer("prefill-0") is pair.peer
    assert moving.state.name == "POSTED"  # what was under way goes on
    transfer = pair.decode.read(pair.peer["kv"], into=pair.local, backend="second")
    late.in_flight[0].complete()
    assert transfer.wait().telemetry.backend == "SECOND"
    me = pair.decode.peer("decode-0")
    assert set(me.target.links) == {"STEPPED", "SECOND"}


def test_a_backend_opened_later_reaches_the_agent_itself(pair: Pair) -> None:
    me = pair.decode.peer("decode-0")
    late = Second("decode-0")
    pair.decode._memory.adopt(late)
    pair.decode.engine.add_backend(late)
    assert pair.decode.peer("decode-0") is me
    assert set(me.target.links) == {"STEPPED", "SECOND"}
    assert len(me.target.section.lookup("SECOND", MemoryKind.DRAM)) == 1


def test_what_a_late_backend_refuses_changes_nothing(pair: Pair) -> None:
    pair.decode.engine.add_backend(Second("decode-0"))
    peer = pair.load("a", [4096], info=INFO)
    rows = np.array([(4096, 8, 0)], np.uint64)
    section = SectionMetadata("SECOND", MemoryKind.DRAM, rows, RemoteKeys.of([b"none of theirs"]))
    metadata = AgentMetadata("remote-0", {"STEPPED": INFO, "SECOND": INFO}, (section,))
    record = PeerRecord(metadata, "1" * 32, None, {}, "b")
    with pytest.raises(MetadataDecodeError):
        pair.decode._peers.load(pair.decode.engine, record)
    assert set(peer.target.links) == {"STEPPED"}
    assert peer.labels == ("a",)
