"""Peers over a hand-driven backend: loading, updating, and what a broken connection means."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent, Peer
from trunkline.errors import (
    AgentNotFoundError,
    MetadataDecodeError,
    PeerGoneError,
    SegmentNotFoundError,
    TransferError,
    UnknownPeerError,
)
from trunkline.testing.stepped import SteppedBackend, SteppedPeer, SteppedRequest
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT = 20.0


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
    with pytest.raises(SegmentNotFoundError):
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


def test_closing_the_agent_buries_its_peers(pair: Pair) -> None:
    pair.decode.close()
    assert pair.peer.wait_gone(0) == "agent 'decode-0' was closed"
    assert pair.link(pair.peer).is_closed
