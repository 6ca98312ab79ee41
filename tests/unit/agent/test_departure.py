"""Peers whose lease ran out: gone, suspect, or lost until they come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.agent.conftest import TTL, Bench, Told, is_loaded

from trunkline.directory.event import LeaveReason, PeerJoined, PeerLeft, PeerSuspect, Synced
from trunkline.errors import DeadlineError, PeerGoneError
from trunkline.testing.stepped import SteppedPeer
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from trunkline import Agent, Peer


def link(peer: Peer) -> SteppedPeer:
    link = peer.target.links["STEPPED"]
    assert isinstance(link, SteppedPeer)
    return link


def test_expired_but_answering_is_suspect_for_one_ttl(bench: Bench) -> None:
    prefill = bench.prefill()
    peer = bench.decode.fetch("prefill-0")
    told = bench.watch()
    bench.vanish(prefill)
    told.until(PeerSuspect)
    assert PeerLeft not in told.kinds()
    assert peer.gone is None
    assert bench.decode.peers()["prefill-0"].is_suspect
    late = bench.watch()
    assert late.kinds() == [PeerJoined, PeerSuspect, Synced]
    bench.clock.advance(TTL)
    told.until(PeerLeft)
    assert "lease ran out" in peer.wait_gone(20)
    assert "prefill-0" not in bench.decode.peers()


def test_a_suspect_is_superseded_by_its_successor(bench: Bench) -> None:
    prefill = bench.prefill()
    bench.decode.fetch("prefill-0")
    told = bench.watch()
    bench.vanish(prefill)
    told.until(PeerSuspect)
    again = bench.prefill()
    told.until(PeerJoined, 2)
    assert told.of_peers() == [PeerJoined, PeerSuspect, PeerLeft, PeerJoined]
    bench.clock.advance(TTL)
    assert is_loaded(bench, again.incarnation)


def test_expired_and_refused_is_gone(bench: Bench) -> None:
    prefill = bench.prefill()
    peer = bench.decode.fetch("prefill-0")
    told = bench.watch()
    link(peer).answers = False
    bench.vanish(prefill)
    left = told.until(PeerLeft)
    assert isinstance(left, PeerLeft)
    assert left.reason is LeaveReason.EXPIRED
    assert peer.gone is not None
    assert not peer.is_lost


@pytest.fixture
def lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> tuple[Agent, Peer, Told]:
    """A peer whose lease ran out, and that does not answer."""
    prefill = bench.prefill()
    peer = bench.decode.fetch("prefill-0")
    told = bench.watch()

    def time_out(itself: SteppedPeer, timeout: float) -> None:
        raise DeadlineError(f"no answer within {timeout} s")

    with monkeypatch.context() as patch:
        patch.setattr(SteppedPeer, "connect", time_out)
        bench.vanish(prefill)
        told.until(PeerLeft)
    assert peer.is_lost
    with pytest.raises(PeerGoneError, match="does not answer"):
        peer["kv"]
    return prefill, peer, told


def test_a_lost_peer_is_dropped_after_one_ttl(bench: Bench, lost: tuple[Agent, Peer, Told]) -> None:
    _, peer, told = lost
    bench.clock.advance(TTL)
    eventually(lambda: not peer.is_lost)
    assert peer.gone is not None
    assert told.kinds().count(PeerLeft) == 1


def test_a_lost_peer_that_comes_back_is_the_same(bench: Bench, lost: tuple[Agent, Peer, Told]) -> None:
    prefill, peer, told = lost
    publisher = prefill._membership.publisher  # type: ignore[union-attr]
    publisher._holder.is_closed = False
    publisher._observer.upkeep.request(publisher)
    told.until(PeerJoined, 2)
    assert (peer.gone, bench.decode.peer("prefill-0")) == (None, peer)
    bench.clock.advance(TTL)
    eventually(lambda: not bench.follower.itself._worklist._steps)
    assert peer.gone is None
