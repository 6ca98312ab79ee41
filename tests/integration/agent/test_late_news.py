"""News of a peer that come late, or while the store is away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline import Agent
from trunkline.directory.event import LeaveReason, PeerJoined, PeerLeft, PeerUpdated
from trunkline.errors import StoreUnavailableError
from trunkline.store import open_store
from trunkline.store.contract import Delete, Put, Transaction
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Pair


def test_an_update_that_can_t_be_fetched_is_fetched_later(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.prefill.publish()
    peer = pair.decode.fetch("prefill-0")
    membership = pair.decode._membership
    assert membership is not None
    fetch, failures = membership.fetch, [StoreUnavailableError("away"), StoreUnavailableError("away")]

    def fail_twice(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return fetch(*arguments)

    monkeypatch.setattr(membership, "fetch", fail_twice)
    pair.prefill.register(np.zeros(64, np.uint8), name="late")
    pair.prefill.publish()
    eventually(lambda: "late" in peer, 20)
    assert pair.decode.peer("prefill-0") is peer
    assert peer.gone is None


def test_late_news_of_a_predecessor_do_not_end_its_successor(pair: Pair) -> None:
    follower = pair.decode._follower
    assert follower is not None
    with Agent("worker", store=pair.store, devices="lo") as worker:
        worker.publish()
        old = pair.decode.fetch("worker")
        eventually(lambda: "worker" in pair.decode.peers(), 20)
        listing = pair.decode.peers()["worker"]
    with Agent("worker", store=pair.store, devices="lo") as worker:
        worker.publish()
        new = pair.decode.fetch("worker")
        assert new is not old
        for reason in (LeaveReason.SUPERSEDED, LeaveReason.WITHDRAWN):
            follower._act_at_once(PeerLeft(listing, reason))
        assert new.gone is None


def test_what_waited_while_a_peer_was_found_dead_is_not_told_any_more(pair: Pair) -> None:
    pair.prefill.publish()
    follower = pair.decode._follower
    assert follower is not None
    peer = pair.decode.fetch("prefill-0")
    eventually(lambda: "prefill-0" in pair.decode.peers(), 20)
    listing = pair.decode.peers()["prefill-0"]
    with pair.decode.watch() as watch:
        assert watch.next(20) == PeerJoined(listing)
        follower._peer_died(peer)
        follower.announcer.tell(PeerUpdated(listing))
        assert "prefill-0" not in pair.decode.peers()


@pytest.mark.parametrize("place", ["/nixl/agents", "/nixl/agents/"])
def test_one_of_nixl_that_is_withdrawn_before_it_is_followed_is_gone(
    pair: Pair, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Agent("nixl", store="", devices="lo") as nixl:
        blob = nixl.local_metadata()
    membership = pair.decode._membership
    assert membership is not None
    key, follow = f"{place}/nixl/metadata", membership.follow_nixl
    with open_store(pair.store) as store:

        def withdraw_and_follow(name: str) -> None:
            store.transact(Transaction((), (Delete(key),)), timeout=5)
            follow(name)

        monkeypatch.setattr(membership, "follow_nixl", withdraw_and_follow)
        store.transact(Transaction((), (Put(key, blob),)), timeout=5)
        assert pair.decode.fetch("nixl").wait_gone(20) == "it withdrew what it had published"
        monkeypatch.undo()
        store.transact(Transaction((), (Put(key, blob),)), timeout=5)
        eventually(lambda: pair.decode.peer("nixl").gone is None, 20)
