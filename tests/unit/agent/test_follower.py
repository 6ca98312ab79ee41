"""An agent's peers as the phone book says they are, over a hand-driven backend and a clock that stands still."""

from __future__ import annotations

import threading
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent, Peer
from trunkline.agent.follower import RETRY_DELAY, Follower
from trunkline.clock import Deadline
from trunkline.directory import sharing as observers
from trunkline.directory.event import (
    DirectoryEvent,
    LeaveReason,
    PeerJoined,
    PeerLeft,
    PeerSuspect,
    PeerUpdated,
    StoreLost,
    Synced,
)
from trunkline.directory.roster import SETTLE
from trunkline.directory.view import AgentListing
from trunkline.errors import (
    ClosedError,
    DeadlineError,
    PeerDrainingError,
    PeerGoneError,
    PeerIncompatibleError,
    StoreUnavailableError,
)
from trunkline.store import open_store
from trunkline.testing.clock import FakeClock
from trunkline.testing.stepped import SteppedBackend, SteppedPeer
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.directory import DirectoryWatch
    from trunkline.directory.publication import Publication

TTL = 10.0


class Told:
    """What a watch told, in short."""

    def __init__(self, watch: DirectoryWatch) -> None:
        self.watch = watch
        self.events: list[DirectoryEvent] = []

    def take(self) -> list[DirectoryEvent]:
        while (event := self.watch.next(0)) is not None:
            self.events.append(event)
        return self.events

    def kinds(self) -> list[type[DirectoryEvent]]:
        return [type(event) for event in self.take()]

    def of_peers(self) -> list[type[DirectoryEvent]]:
        """Events but for Synced, which may come before or after what was published just now."""
        return [kind for kind in self.kinds() if kind is not Synced]

    def until(self, kind: type[DirectoryEvent], count: int = 1) -> DirectoryEvent:
        eventually(lambda: self.kinds().count(kind) >= count, 20)
        return [event for event in self.events if type(event) is kind][count - 1]


class Bench:
    """``decode-0`` follows ``prefill-0``; the others' keys hang on leases that end with their stores."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = open_store(f"memory://{uuid.uuid4().hex}", clock=self.clock)
        self.agents: list[Agent] = []
        self.memory = np.arange(64, dtype=np.uint8)
        self.decode = self.open("decode-0")

    def open(
        self, name: str, *, reload: bool = True, takeover: bool = False, attributes: dict[str, str] | None = None
    ) -> Agent:
        agent = Agent(
            name,
            store=self.store,
            backends=[SteppedBackend(name)],
            ttl=TTL,
            reload=reload,
            takeover=takeover,
            attributes=attributes,
            clock=self.clock,
        )
        self.agents.append(agent)
        return agent

    def prefill(self, name: str = "prefill-0", *, takeover: bool = False, **attributes: str) -> Agent:
        agent = self.open(name, takeover=takeover, attributes=attributes)
        agent.register(self.memory, name="kv")
        agent.publish()
        return agent

    def watch(self, agent: Agent | None = None, *, include_nixl: bool = False) -> Told:
        told = Told((agent or self.decode).watch(include_nixl=include_nixl))
        told.until(Synced)
        return told

    def vanish(self, agent: Agent) -> None:
        """Take an agent's record away, as if its lease had run out, and let that be settled."""
        publisher = agent._membership.publisher  # type: ignore[union-attr]
        publisher._holder.is_closed = True  # it does not mend what follows
        session = publisher._holder.session
        assert session is not None
        self.store.revoke(session.lease.id, timeout=1)
        observer = self.follower.observer
        eventually(lambda: observer._roster.next_due is not None)
        self.clock.advance(SETTLE)

    @property
    def follower(self) -> _Seen:
        return _Seen(self.decode)

    def close(self) -> None:
        for agent in self.agents:
            agent.close(drain=0)
        self.store.close()
        observers.close_all()


class _Seen:
    def __init__(self, agent: Agent) -> None:
        assert agent._membership is not None
        assert agent._follower is not None
        self.observer = agent._membership.observer
        self.itself: Follower = agent._follower


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def link(peer: Peer) -> SteppedPeer:
    link = peer.target.links["STEPPED"]
    assert isinstance(link, SteppedPeer)
    return link


def is_loaded(bench: Bench, incarnation: str) -> bool:
    peer = bench.decode._peers.find("prefill-0")
    return peer is not None and peer.incarnation == incarnation and peer.gone is None


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


def test_a_new_watch_is_told_how_things_stand(bench: Bench) -> None:
    follower = bench.follower.itself
    bench.prefill()
    told = bench.watch()
    told.until(PeerJoined)
    follower._tell(StoreLost("no route"))
    assert bench.watch().kinds() == [PeerJoined, Synced, StoreLost]
    follower.announcer.fail(StoreUnavailableError("refused"))
    late = bench.decode.watch()
    assert [type(late.next(0)) for _ in range(3)] == [PeerJoined, Synced, StoreLost]
    with pytest.raises(StoreUnavailableError):
        late.next(0)


def test_watches_that_include_nixls_agents_are_synced_once(bench: Bench) -> None:
    told = bench.watch(include_nixl=True)
    bench.follower.itself._tell(Synced())
    assert told.kinds() == [Synced]


def test_closing_ends_watches(bench: Bench) -> None:
    told, nixl = bench.watch(), bench.watch(include_nixl=True)
    follower = bench.follower.itself
    follower.close(Deadline(5))
    follower.close(Deadline(5))
    for each in (told, nixl):
        with pytest.raises(ClosedError):
            each.watch.next()
        each.watch.close()
    with pytest.raises(ClosedError):
        follower.announcer.watch("*", {}, include_nixl=False)
