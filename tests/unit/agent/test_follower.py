"""An agent's peers as the phone book says they are."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.unit.agent.conftest import Bench, is_loaded

from trunkline.agent.follower import RETRY_DELAY
from trunkline.clock import Deadline
from trunkline.directory.event import LeaveReason, PeerJoined, PeerLeft, PeerUpdated
from trunkline.directory.view import AgentListing
from trunkline.errors import PeerDrainingError, PeerIncompatibleError, StoreUnavailableError
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline import Peer
    from trunkline.directory.publication import Publication


def test_what_changes_is_loaded_and_told_afterwards(bench: Bench) -> None:
    prefill = bench.prefill(role="prefill")
    peer = bench.decode.fetch("prefill-0")
    told = bench.watch()
    prefill.register(bench.memory.copy(), name="more")
    prefill.publish()
    updated = told.until(PeerUpdated)
    assert isinstance(updated, PeerUpdated)
    assert (updated.label, "more" in peer) == ("metadata", True)
    prefill.update_attributes({"role": "both"})
    told.until(PeerUpdated, 2)
    assert peer.attributes == {"role": "both"}
    assert bench.decode.peers()["prefill-0"].attributes == {"role": "both"}


def test_a_label_that_is_withdrawn_is_dropped_and_loaded_again(bench: Bench) -> None:
    prefill = bench.prefill()
    memory = prefill.register(bench.memory.copy(), name="part")
    prefill.publish(label="part", segments=memory)
    peer = bench.decode.fetch("prefill-0")
    bench.decode.fetch("prefill-0", label="part")
    prefill.withdraw(label="part")
    eventually(lambda: peer.labels == ("metadata",))
    prefill.publish(label="part", segments=memory)
    eventually(lambda: peer.labels == ("metadata", "part"))
    assert peer.gone is None


def test_one_that_withdraws_is_gone_and_loaded_when_it_comes_again(bench: Bench) -> None:
    prefill = bench.prefill()
    peer = bench.decode.fetch("prefill-0")
    told = bench.watch()
    prefill.withdraw()
    left = told.until(PeerLeft)
    assert isinstance(left, PeerLeft)
    assert left.reason is LeaveReason.WITHDRAWN
    assert "withdrew" in peer.wait_gone(20)
    prefill.publish()
    told.until(PeerJoined, 2)
    assert is_loaded(bench, prefill.incarnation)


@pytest.mark.parametrize("reload", [True, False])
def test_a_new_incarnation_replaces_the_one_before(bench: Bench, *, reload: bool) -> None:
    bench.decode.close(drain=0)
    bench.decode = bench.open("decode-0", reload=reload)
    first = bench.prefill()
    before = bench.decode.fetch("prefill-0")
    told = bench.watch()
    second = bench.prefill(takeover=True)
    told.until(PeerJoined, 2)
    assert told.of_peers() == [PeerJoined, PeerLeft, PeerJoined]
    eventually(lambda: before.gone)
    assert is_loaded(bench, second.incarnation) is reload
    assert first.incarnation == before.incarnation
    if not reload:
        assert bench.decode.fetch("prefill-0").incarnation == second.incarnation


def test_one_that_drains_takes_nothing_new(bench: Bench) -> None:
    prefill = bench.prefill()
    peer = bench.decode.fetch("prefill-0")
    local = bench.decode.register(np.zeros(64, np.uint8))
    prefill._membership.update(Deadline(None), state="draining")  # type: ignore[union-attr]
    eventually(lambda: peer.target.is_draining)
    with pytest.raises(PeerDrainingError):
        bench.decode.read(peer["kv"], into=local)


def test_late_news_of_a_predecessor_does_not_touch_its_successor(bench: Bench) -> None:
    bench.prefill()
    peer = bench.decode.fetch("prefill-0")
    before = AgentListing("prefill-0", "1" * 32, state="draining", labels={"metadata": 1})
    follower = bench.follower.itself
    for event in (
        PeerUpdated(before),
        PeerUpdated(before, "metadata"),
        PeerLeft(before, LeaveReason.SUPERSEDED),
        PeerLeft(before, LeaveReason.WITHDRAWN),
    ):
        follower._tell(event)
        eventually(lambda: not follower._worklist._steps)
    assert (peer.gone, peer.target.is_draining, peer.labels) == (None, False, ("metadata",))
    assert bench.decode.peer("prefill-0") is peer


@contextmanager
def stopped_before_loading(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[list[Peer]]:
    """Fetch in another thread, and hold it between what it read and loading that."""
    membership = bench.decode._membership
    assert membership is not None
    fetch, read, go_on = membership.fetch, threading.Event(), threading.Event()

    def slow(*arguments: object) -> list[Publication]:
        found = list(fetch(*arguments))  # type: ignore[arg-type]
        read.set()
        assert go_on.wait(20)
        return found

    peers: list[Peer] = []
    with monkeypatch.context() as patch:
        patch.setattr(membership, "fetch", slow)
        thread = threading.Thread(target=lambda: peers.append(bench.decode.fetch(name)))
        thread.start()
        assert read.wait(20)
    yield peers
    eventually(lambda: not bench.follower.itself._worklist._steps)
    go_on.set()
    thread.join(20)


def test_what_happens_while_it_is_fetched_is_not_missed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    prefill = bench.prefill()
    told = bench.watch()
    with stopped_before_loading(bench, monkeypatch, "prefill-0") as peers:
        prefill.register(bench.memory.copy(), name="more")
        prefill.publish()
        told.until(PeerUpdated)
    eventually(lambda: "more" in peers[0])


def test_one_that_leaves_while_it_is_fetched_is_gone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    prefill = bench.prefill()
    told = bench.watch()
    with stopped_before_loading(bench, monkeypatch, "prefill-0") as peers:
        prefill.withdraw()
        told.until(PeerLeft)
    assert peers[0].wait_gone(20)
    assert told.kinds().count(PeerLeft) == 1


def test_one_that_starts_anew_while_it_is_fetched_is_loaded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.prefill()
    told = bench.watch()
    with stopped_before_loading(bench, monkeypatch, "prefill-0") as peers:
        again = bench.prefill(takeover=True)
        told.until(PeerJoined, 2)
    eventually(lambda: is_loaded(bench, again.incarnation))
    assert peers[0].gone is not None


def test_what_waits_of_a_forgotten_agent_stays_in_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    prefill = bench.prefill()
    bench.decode.fetch("prefill-0")
    told = bench.watch()
    membership, go_on, asked = bench.decode._membership, threading.Event(), threading.Event()
    assert membership is not None
    fetch = membership.fetch

    def slow(*arguments: object) -> Iterator[Publication]:
        asked.set()
        assert go_on.wait(20)
        return fetch(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(membership, "fetch", slow)
    prefill.register(bench.memory.copy(), name="more")
    prefill.publish()
    assert asked.wait(20)
    bench.decode.unload_peer("prefill-0")
    prefill.withdraw()
    eventually(lambda: bench.follower.observer.latest("prefill-0")[0] is None)
    go_on.set()

    def is_idle() -> bool:
        bench.clock.advance(1.0)  # the look-up of what is gone takes its time
        return not bench.follower.itself._worklist._steps

    eventually(is_idle)
    told.until(PeerLeft)
    assert told.kinds()[-1] is PeerLeft
    assert "prefill-0" not in bench.decode.peers()


def test_a_store_that_is_away_does_not_end_a_peer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    prefill = bench.prefill()
    peer = bench.decode.fetch("prefill-0")
    follower, asked = bench.follower.itself, threading.Event()

    def fail(*_: object) -> Publication:
        asked.set()
        raise StoreUnavailableError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(bench.decode._membership, "fetch", fail)
        prefill.register(bench.memory.copy(), name="more")
        prefill.publish()
        assert asked.wait(20)
        eventually(lambda: not follower._worklist._steps)
    assert (peer.gone, "more" in peer) == (None, False)
    bench.clock.advance(RETRY_DELAY)
    eventually(lambda: "more" in peer)


def test_what_is_required_is_required_of_the_next_incarnation_too(bench: Bench) -> None:
    bench.prefill(model="a")
    with pytest.raises(PeerIncompatibleError):
        bench.decode.fetch("prefill-0", require={"model": "b"})
    assert bench.follower.itself._wanted == {}
    bench.decode.fetch("prefill-0", require={"model": "a"})
    with pytest.raises(PeerIncompatibleError):
        bench.decode.fetch("prefill-0", require={"model": "b"})
    again = bench.prefill(takeover=True, model="a")
    eventually(lambda: is_loaded(bench, again.incarnation))
    bench.prefill(takeover=True, model="c")

    def failure() -> Exception | None:
        try:
            bench.decode.peer("prefill-0")
        except PeerIncompatibleError as error:
            return error
        return None

    eventually(failure)
    fits = bench.prefill(takeover=True, model="a")
    eventually(lambda: is_loaded(bench, fits.incarnation))
    assert failure() is None
