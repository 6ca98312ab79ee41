"""Keeping an agent's peers as the phone book says they are, without being asked, and telling its watches about it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from trunkline.agent.record import record_of_publication
from trunkline.clock import Clock, Deadline
from trunkline.directory.event import (
    DirectoryEvent,
    LeaveReason,
    NameConflict,
    PeerEvent,
    PeerJoined,
    PeerLeft,
    PeerSuspect,
    PeerUpdated,
    StoreBack,
    StoreLost,
    Synced,
)
from trunkline.directory.roster import SYNCED
from trunkline.directory.view import DirectoryView
from trunkline.directory.watch import DirectoryWatch
from trunkline.errors import AgentNotFoundError, ClosedError, PeerGoneError, TrunklineError
from trunkline.metadata.key import DEFAULT_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trunkline.agent.membership import Membership
    from trunkline.agent.peer import Peer
    from trunkline.agent.peers import Peers
    from trunkline.directory.observer import Subscription
    from trunkline.directory.publication import Publication
    from trunkline.directory.view import AgentListing
    from trunkline.transfer.engine import Engine

log = logging.getLogger(__name__)

RELOAD_TIMEOUT = 5.0
"""Seconds that loading a peer again may take before it is given up until its next change."""

RETRY_DELAY = 1.0
"""Seconds until it is tried again, if the store was what failed."""


@dataclass(slots=True)
class _Wanted:
    """An agent that the application has fetched, and keeps.

    Attributes:
        labels: Which parts of its metadata, each with the number of the content that was loaded (0: none yet).
        require: What its attributes have to be.
        fetches: How many calls are just fetching it, which load it themselves.
    """

    labels: dict[str, int] = field(default_factory=dict)
    require: Mapping[str, str] = field(default_factory=dict)
    fetches: int = 0


class _Expiry:
    """The end of an agent's second TTL, for the upkeep to call."""

    def __init__(self, follower: Follower, listing: AgentListing) -> None:
        self._follower = follower
        self._listing = listing

    def mend(self) -> None:
        self._follower.enqueue(PeerLeft(self._listing, LeaveReason.EXPIRED), is_final=True)


class _Refresh:
    """Another look at an agent that could not be loaded, for the upkeep to call."""

    def __init__(self, follower: Follower, name: str) -> None:
        self._follower = follower
        self._name = name

    def mend(self) -> None:
        self._follower.enqueue_refresh(self._name)


class Follower:
    """Brings peers up to date, loads those that came back, and drops those that are gone.

    Events of agents that were fetched are worked off one after the other on a thread that lives only while there are
    any, and are told to watches afterwards: who hears ``PeerJoined`` finds the new peer loaded. Any thread may call any
    method.

    Args:
        name: The agent's name.
        peers: Its peers.
        engine: Its engine.
        membership: Its place in the phone book.
        reload: Whether new incarnations are loaded by themselves.
        clock: Measures time.
    """

    def __init__(
        self, name: str, peers: Peers, engine: Engine, membership: Membership, *, reload: bool, clock: Clock
    ) -> None:
        self._name = name
        self._peers = peers
        self._engine = engine
        self._membership = membership
        self._reload = reload
        self._clock = clock
        self._lock = threading.RLock()  # guards all below; never held while waiting
        self._wanted: dict[str, _Wanted] = {}
        self._queue: deque[tuple[PeerEvent, bool] | str] = deque()  # events, and names of those to look at again
        self._thread: threading.Thread | None = None
        self._listings: dict[str, AgentListing] = {}  # as told to watches
        self._unreachable: dict[str, str] = {}  # incarnations whose process is known to have ended
        self._expiries: dict[str, _Expiry] = {}
        self._watches: list[DirectoryWatch] = []
        self._is_synced = False
        self._outage: StoreLost | None = None
        self._is_closed = False
        self._subscription = membership.observer.subscribe(self._tell, self._fail)
        peers.on_death = self._peer_died

    # -- for the agent -----------------------------------------------------------------------------------------

    def fetch(self, name: str, label: str, require: Mapping[str, str], deadline: Deadline) -> Peer:
        """Find an agent, load it, and keep it up to date from then on. Raises as Agent.fetch."""
        with self._lock:
            is_new = name not in self._wanted
            wanted = self._wanted.setdefault(name, _Wanted())
            wanted.fetches += 1
            wanted.require = dict(require) or wanted.require
        try:
            publication = self._membership.fetch(name, label, self._peers.dead_incarnations(name), deadline)
            peer = self._load(wanted, publication)
        finally:
            with self._lock:
                wanted.fetches -= 1
                if is_new and not wanted.labels and not wanted.fetches:
                    self._wanted.pop(name, None)
        self._catch_up(name)
        return peer

    def forget(self, name: str) -> None:
        """Follow an agent no more."""
        with self._lock:
            wanted = self._wanted.pop(name, None)
            self._drop_expiry(name)
        if wanted is not None:
            self._membership.unfollow_nixl(name)

    def watch(self, pattern: str, attributes: Mapping[str, str], *, include_nixl: bool) -> DirectoryWatch:
        """Return a new watch; see Agent.watch."""

        def close(closed: DirectoryWatch) -> None:
            with self._lock:
                if closed in self._watches:
                    self._watches.remove(closed)
            if subscription is not None:
                observer.unsubscribe(subscription, include_nixl=True)

        def sync(event: DirectoryEvent) -> None:
            if isinstance(event, Synced):
                watch.offer(event)

        observer = self._membership.observer
        subscription: Subscription | None = None
        watch = DirectoryWatch(
            pattern,
            attributes,
            include_nixl=include_nixl,
            except_name=self._name,
            clock=self._clock,
            on_close=close,
        )
        with self._lock:
            if self._is_closed:
                raise ClosedError(f"agent {self._name!r} is closed: make a new Agent", agent=self._name)
            for listing in self._listings.values():
                watch.offer(PeerJoined(replace(listing, is_suspect=False)))
                if listing.is_suspect:
                    watch.offer(PeerSuspect(listing))
            if self._is_synced and not include_nixl:
                watch.offer(SYNCED)
            if self._outage is not None:
                watch.offer(self._outage)
            self._watches.append(watch)
        if include_nixl:
            subscription = observer.subscribe(sync, watch.fail, include_nixl=True)
        return watch

    def view(self) -> DirectoryView:
        """Return who is there; see Agent.peers."""
        seen = self._membership.observer.view()
        with self._lock:
            listings = {name: listing for name, listing in self._listings.items() if name != self._name}
        return DirectoryView(listings, age=seen.age, is_synced=self._is_synced)

    def close(self) -> None:
        """Follow nobody any more, and end the watches. Idempotent."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._queue.clear()
            watches, self._watches = self._watches, []
            for name in list(self._expiries):
                self._drop_expiry(name)
            thread = self._thread
        self._membership.observer.unsubscribe(self._subscription)
        for watch in watches:
            watch.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # -- what happens ------------------------------------------------------------------------------------------

    def enqueue(self, event: PeerEvent, *, is_final: bool = False) -> None:
        """Have an event worked off; ``is_final`` if it is no news, but the end of a time to come back."""
        with self._lock:
            if self._is_closed:
                return
            self._queue.append((event, is_final))
            self._start()

    def enqueue_refresh(self, name: str) -> None:
        """Have an agent brought up to date without an event: watches have been told, or will be."""
        with self._lock:
            if self._is_closed:
                return
            self._queue.append(name)
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"trunkline-follow-{self._name}", daemon=True)
            self._thread.start()

    def _tell(self, event: DirectoryEvent) -> None:
        """Take an event from the observer, on its thread."""
        if isinstance(event, (PeerJoined, PeerUpdated, PeerSuspect, PeerLeft)):
            agent = event.agent
            with self._lock:
                if self._unreachable.get(agent.name) == agent.incarnation:
                    if isinstance(event, PeerLeft):
                        del self._unreachable[agent.name]
                    return
                is_wanted = agent.name in self._wanted
            if not is_wanted:
                self._spread(event)
                return
            self._act_at_once(event)
            self.enqueue(event)
            return
        if isinstance(event, Synced):
            self._is_synced = True
        elif isinstance(event, (StoreLost, StoreBack)):
            self._outage = event if isinstance(event, StoreLost) else None
        elif isinstance(event, NameConflict) and event.name != self._name:
            return
        self._spread(event)

    def _act_at_once(self, event: PeerEvent) -> None:
        """Keep new transfers away from a peer that must not have any, before anything that may wait."""
        peer = self._peers.find(event.name)
        if peer is None or peer.gone is not None or not _is_same(peer, event.agent):
            return  # a fetch may have loaded the successor before this news came
        if isinstance(event, PeerLeft) and event.reason in {LeaveReason.WITHDRAWN, LeaveReason.SUPERSEDED}:
            peer.bury(_REASONS[event.reason])
        elif not isinstance(event, PeerLeft):
            peer.target.is_draining = event.agent.state == "draining"

    def _spread(self, event: DirectoryEvent) -> None:
        with self._lock:
            if isinstance(event, PeerLeft):
                self._listings.pop(event.name, None)
            elif isinstance(event, (PeerJoined, PeerUpdated, PeerSuspect)):
                if self._unreachable.get(event.name) == event.agent.incarnation:
                    return  # it waited in the queue while the process was found dead: nothing would end it again
                self._listings[event.name] = event.agent
            for watch in self._watches:
                watch.offer(event)

    def _fail(self, error: TrunklineError) -> None:
        with self._lock:
            for watch in self._watches:
                watch.fail(error)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._thread = None
                    return
                item = self._queue.popleft()
            if isinstance(item, str):
                self._refresh(item)
                continue
            event, is_final = item
            try:
                told = self._expire(event) if is_final and isinstance(event, PeerLeft) else self._work_off(event)
            except ClosedError:
                continue
            except Exception:  # whatever one agent's metadata does, the others' events go on
                log.exception("agent %r could not follow %r", self._name, event)
                continue
            if told is not None:
                self._spread(told)

    def _refresh(self, name: str) -> None:
        """Bring a peer in line with what its record says now."""
        try:
            listing = self._membership.observer.listing(name)
            if listing is not None and not listing.is_suspect:
                self._work_off(PeerUpdated(listing))
        except ClosedError:
            pass
        except Exception:  # as for events
            log.exception("agent %r could not bring peer %r up to date", self._name, name)

    def _work_off(self, event: PeerEvent) -> PeerEvent | None:
        """Bring a peer in line with an event; return what to tell of it."""
        name = event.name
        with self._lock:
            wanted = self._wanted.get(name)
        if wanted is None:
            return event
        if isinstance(event, PeerLeft):
            return self._leave(event)
        peer = self._peers.find(name)
        self._drop_expiry(name)
        if isinstance(event, PeerSuspect):
            return event
        if isinstance(event, PeerUpdated) and event.label is not None and event.generation is None:
            if event.label in wanted.labels and peer is not None and peer.gone is None:
                wanted.labels[event.label] = 0
                self._peers.drop_label(self._engine, name, event.label)
            return event
        is_same = peer is not None and _is_same(peer, event.agent)
        if peer is not None and is_same:
            peer.revive()
        if peer is None or not is_same or peer.gone is not None:
            if not self._reload:
                return event
            wanted.labels = dict.fromkeys(wanted.labels, 0)
        else:
            if not event.agent.is_nixl:
                peer.attributes = dict(event.agent.attributes)
            peer.target.is_draining = event.agent.state == "draining"
        if not wanted.fetches:
            self._load_again(name, wanted, event.agent)
        return event

    def _load_again(self, name: str, wanted: _Wanted, agent: AgentListing) -> None:
        """Load what differs from what was loaded of an agent."""
        for label, loaded in sorted(wanted.labels.items(), key=lambda item: item[0] != DEFAULT_LABEL):
            if label not in agent.labels or agent.labels[label] == loaded:
                continue
            try:
                publication = self._membership.fetch(
                    name, label, self._peers.dead_incarnations(name), Deadline(RELOAD_TIMEOUT, self._clock)
                )
                self._load(wanted, publication)
            except AgentNotFoundError:  # gone again: its event is on the way
                return
            except TrunklineError as error:
                log.warning("agent %r can't load peer %r again: %s", self._name, name, error)
                if error.retryable:  # the store is away, not the peer: what was loaded of it stays, and no event may
                    # come when the store is back
                    self._membership.observer.upkeep.request(_Refresh(self, name), RETRY_DELAY)
                    return
                self._peers.fail(self._engine, name, error)
                return

    def _load(self, wanted: _Wanted, publication: Publication) -> Peer:
        record = record_of_publication(publication)
        record.check(wanted.require)
        peer = self._peers.load(self._engine, record)
        presence = publication.presence
        if presence is None:
            self._membership.follow_nixl(publication.name)
        with self._lock:
            self._drop_expiry(publication.name)
            if presence is None:
                wanted.labels[publication.label] = publication.revision
            else:
                wanted.labels[publication.label] = presence.labels[publication.label].generation
                peer.target.is_draining = presence.state == "draining"
        return peer

    def _catch_up(self, name: str) -> None:
        """After a fetch: work off what changed while it was under way and events were left to it."""
        listing, peer = self._membership.observer.listing(name), self._peers.find(name)
        with self._lock:
            wanted = self._wanted.get(name)
            if listing is None or wanted is None or wanted.fetches:
                return
            is_behind = not listing.is_nixl and (
                peer is None
                or not _is_same(peer, listing)
                or any(listing.labels.get(label, loaded) > loaded for label, loaded in wanted.labels.items())
            )
        if is_behind:
            self.enqueue_refresh(name)

    # -- ends --------------------------------------------------------------------------------------------------

    def _leave(self, event: PeerLeft) -> PeerEvent:
        name, peer = event.name, self._peers.find(event.name)
        if peer is None or not _is_same(peer, event.agent):
            return event
        if event.reason is not LeaveReason.EXPIRED:
            self._peers.end(self._engine, peer, _REASONS[event.reason])
            return event
        if peer.gone is not None:
            return event
        # The lease is no proof: whether the data path still answers is.
        try:
            self._peers.probe(peer)
        except PeerGoneError:
            self._peers.end(self._engine, peer, _REASONS[event.reason])
            return event
        except TrunklineError:
            peer.lose("its lease ran out and it does not answer")
            self._schedule_expiry(name, event.agent)
            return event
        self._schedule_expiry(name, event.agent)
        return PeerSuspect(replace(event.agent, is_suspect=True))

    def _schedule_expiry(self, name: str, listing: AgentListing) -> None:
        with self._lock:
            self._drop_expiry(name)
            self._expiries[name] = _Expiry(self, listing)
            self._membership.observer.upkeep.request(
                self._expiries[name], listing.ttl or self._membership.publisher.ttl
            )

    def _drop_expiry(self, name: str) -> None:
        expiry = self._expiries.pop(name, None)
        if expiry is not None:
            self._membership.observer.upkeep.forget(expiry)

    def _expire(self, event: PeerLeft) -> PeerLeft | None:
        """A lost or suspect peer had a second TTL to come back, and did not."""
        with self._lock:
            if self._expiries.pop(event.name, None) is None:
                return None
        peer = self._peers.find(event.name)
        if peer is not None and _is_same(peer, event.agent):
            self._peers.end(self._engine, peer, _REASONS[LeaveReason.EXPIRED])
        return event

    def _peer_died(self, peer: Peer) -> None:
        """A connection broke, and a new one was refused: the peer's process is gone."""
        with self._lock:
            listing = self._listings.get(peer.name)
            if listing is None or not _is_same(peer, listing) or listing.is_nixl:
                return
            self._unreachable[peer.name] = listing.incarnation
            self._drop_expiry(peer.name)
        self._spread(PeerLeft(listing, LeaveReason.UNREACHABLE))


_REASONS = {
    LeaveReason.WITHDRAWN: "it withdrew what it had published",
    LeaveReason.EXPIRED: "its lease ran out",
    LeaveReason.SUPERSEDED: "superseded by a new incarnation",
}


def _is_same(peer: Peer, listing: AgentListing) -> bool:
    """Whether a loaded peer is the incarnation of a listing. NIXL's agents don't say which they are."""
    return listing.is_nixl if peer.incarnation is None else peer.incarnation == listing.incarnation
