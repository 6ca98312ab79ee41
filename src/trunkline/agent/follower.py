"""Keeping an agent's peers as the phone book says they are, without being asked, and telling its watches about it."""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from trunkline.agent.announcer import Announcer
from trunkline.agent.departure import REASONS, Departures
from trunkline.agent.peer import is_listed
from trunkline.agent.record import record_of_publication
from trunkline.agent.reminder import Reminder, Reminders
from trunkline.agent.worklist import Worklist
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
)
from trunkline.errors import (
    AgentNotFoundError,
    MetadataMismatchError,
    StoreError,
    TrunklineError,
)
from trunkline.metadata.key import DEFAULT_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from trunkline.agent.membership import Membership
    from trunkline.agent.peer import Peer
    from trunkline.agent.peers import Peers
    from trunkline.directory.publication import Publication
    from trunkline.directory.view import AgentListing
    from trunkline.transfer.engine import Engine

log = logging.getLogger(__name__)

RELOAD_TIMEOUT = 5.0
"""Seconds that one attempt to load a peer again may take."""

RETRY_DELAY = 1.0
"""Seconds from an attempt that failed because of the store to the next."""

_Step: TypeAlias = "Callable[[], PeerEvent | None]"
"""Something to be done for an agent, which returns what to tell of it then."""


@dataclass(slots=True)
class _Wanted:
    """An agent that the application has fetched, and keeps.

    Attributes:
        labels: Which parts of its metadata, each with the number of the content that was loaded (0: none yet).
        require: What its attributes have to be.
        catalog: What identifies the catalog that was loaded.
        fetches: How many calls are just fetching it, which load it themselves.
        revision: The store's revision of the latest that was loaded.
        departure: How it left last while it was being fetched; None if it came again.
    """

    labels: dict[str, int] = field(default_factory=dict)
    require: Mapping[str, str] = field(default_factory=dict)
    catalog: str = ""
    fetches: int = 0
    revision: int = 0
    departure: PeerLeft | None = None


class Follower:
    """Brings peers up to date, loads those that came back, and drops those that are gone.

    Events of agents that were fetched are worked off in the background, those of one agent one after the other, and are
    told to watches afterwards: who hears ``PeerJoined`` finds the new peer loaded. Any thread may call any method.

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
        self._worklist = Worklist(name)
        self._departures = Departures(peers, engine, membership, self._enqueue)
        self._retries = Reminders(membership.observer.upkeep)
        self._is_closed = False
        self.announcer = Announcer(name, membership.observer, self._lock, clock)
        self._subscription = membership.observer.subscribe(self._tell, self.announcer.fail)
        peers.on_death = self._peer_died

    # -- for the agent -----------------------------------------------------------------------------------------

    def fetch(self, names: Sequence[str], label: str, require: Mapping[str, str], deadline: Deadline) -> list[Peer]:
        """Find agents, load them, and keep them up to date from then on. Raises as Agent.fetch_many."""
        peers: dict[str, Peer] = {}
        with contextlib.ExitStack() as fetching:
            wanted = {name: fetching.enter_context(self._fetching(name)) for name in dict.fromkeys(names)}
            dead = [incarnation for name in wanted for incarnation in self._peers.dead_incarnations(name)]
            for publication in self._membership.fetch(list(wanted), label, dead, deadline):
                name, one = publication.name, wanted[publication.name]
                peers[name] = self._load(one, publication, require or one.require)
                with self._lock:
                    one.require = dict(require) or one.require
                    self._wanted.setdefault(name, one)  # it may have been forgotten meanwhile
        return [peers[name] for name in names]

    @contextlib.contextmanager
    def _fetching(self, name: str) -> Iterator[_Wanted]:
        """Leave events of an agent to a fetch, for as long as the context lasts."""
        with self._lock:
            wanted = self._wanted.setdefault(name, _Wanted())
            wanted.fetches += 1
            if wanted.fetches == 1:
                wanted.departure = None
        try:
            yield wanted
        finally:
            with self._lock:
                wanted.fetches -= 1
                if not wanted.labels and not wanted.fetches and self._wanted.get(name) is wanted:
                    del self._wanted[name]
            if self._is_behind(name):
                self._enqueue(name, partial(self._catch_up, name))

    def forget(self, name: str) -> None:
        """Follow an agent no more."""
        with self._lock:
            wanted = self._wanted.pop(name, None)
            self._departures.call_off(name)
            self._retries.drop(name)
        if wanted is not None:
            self._membership.unfollow_nixl(name)

    def close(self, deadline: Deadline) -> None:
        """Follow nobody any more, and end the watches. Idempotent.

        What is just being loaded is waited for until the deadline; it fails once the store is closed.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._departures.close()
            self._retries.close()
        self._membership.observer.unsubscribe(self._subscription)
        self.announcer.close()
        self._worklist.close(deadline)

    # -- what happens ------------------------------------------------------------------------------------------

    def _enqueue(self, name: str, step: _Step) -> None:
        """Have something done for an agent, after what is to be done already, and told then."""

        def work_off() -> None:
            told = step()
            if told is not None:
                self.announcer.tell(told)

        with self._lock:
            if not self._is_closed:
                self._worklist.put(name, work_off)

    def _tell(self, event: DirectoryEvent) -> None:
        """Take an event from the observer, on its thread."""
        if isinstance(event, (PeerJoined, PeerUpdated, PeerSuspect, PeerLeft)):
            with self._lock:
                wanted = self._wanted.get(event.name)
                is_wanted = wanted is not None and bool(wanted.labels)
                if wanted is not None and not is_wanted:  # a fetch that waits loads it itself
                    wanted.departure = event if isinstance(event, PeerLeft) else None
                # What is told of one agent stays in order, also if it is forgotten meanwhile.
                if not is_wanted and not self._worklist.is_busy(event.name):
                    self.announcer.tell(event)
                    return
            if is_wanted:
                self._act_at_once(event)
            self._enqueue(event.name, partial(self._work_off, event))
            return
        if isinstance(event, NameConflict) and event.name != self._name:
            return
        self.announcer.tell(event)

    def _act_at_once(self, event: PeerEvent) -> None:
        """Keep new transfers away from a peer that must not have any, before anything that may wait."""
        peer = self._peers.find(event.name)
        if peer is None or peer.gone is not None or not is_listed(peer, event.agent):
            return
        if isinstance(event, PeerLeft) and event.reason in {LeaveReason.WITHDRAWN, LeaveReason.SUPERSEDED}:
            peer.bury(REASONS[event.reason])
        elif not isinstance(event, PeerLeft):
            peer.target.is_draining = event.agent.state == "draining"

    def _work_off(self, event: PeerEvent) -> PeerEvent | None:
        """Bring a peer in line with an event; return what to tell of it."""
        name = event.name
        with self._lock:
            wanted = self._wanted.get(name)
            if wanted is None:
                return event
            if wanted.fetches:
                wanted.departure = event if isinstance(event, PeerLeft) else None
        if isinstance(event, PeerLeft):
            return self._departures.leave(event)
        self._departures.call_off(name)
        if isinstance(event, PeerSuspect):
            return event
        if isinstance(event, PeerUpdated) and event.label is not None and event.generation is None:
            self._drop_label(wanted, event.agent, event.label)
            return event
        self._align(wanted, event.agent)
        return event

    def _drop_label(self, wanted: _Wanted, agent: AgentListing, label: str) -> None:
        """A label was withdrawn. It may have been fetched anew since."""
        peer = self._peers.find(agent.name)
        if peer is None or peer.gone is not None or not is_listed(peer, agent) or agent.revision < wanted.revision:
            return
        if label in wanted.labels:
            wanted.labels[label] = 0
            self._peers.drop_label(self._engine, agent.name, label)

    def _align(self, wanted: _Wanted, agent: AgentListing) -> None:
        """Bring a peer in line with what is listed of it."""
        peer = self._peers.find(agent.name)
        is_same = peer is not None and is_listed(peer, agent)
        if peer is not None and is_same:
            peer.revive()
        if peer is None or not is_same or peer.gone is not None:
            if not self._reload or agent.incarnation in self._peers.dead_incarnations(agent.name):
                return
            if not wanted.fetches:
                wanted.labels = dict.fromkeys(wanted.labels, 0)
        else:
            if not agent.is_nixl:
                peer.attributes = dict(agent.attributes)
            peer.target.is_draining = agent.state == "draining"
        if not wanted.fetches:
            self._load_again(agent.name, wanted, agent)

    def _load_again(self, name: str, wanted: _Wanted, agent: AgentListing) -> None:
        """Load what differs from what was loaded of an agent."""
        changed = [label for label, loaded in wanted.labels.items() if agent.labels.get(label, loaded) != loaded]
        if not changed and agent.catalog != wanted.catalog:  # the same memory under other names: any label brings them
            changed = [label for label in wanted.labels if label in agent.labels][:1]
        for label in sorted(changed, key=lambda label: label != DEFAULT_LABEL):
            listing, _ = self._membership.observer.latest(name)
            if listing is None or label not in listing.labels:  # gone again: not to be waited for, its event comes
                return
            try:
                [publication] = self._membership.fetch(
                    [name], label, self._peers.dead_incarnations(name), Deadline(RELOAD_TIMEOUT, self._clock)
                )
                if self._wanted.get(name) is not wanted:  # it was forgotten meanwhile
                    return
                self._load(wanted, publication, wanted.require)
            except (AgentNotFoundError, StoreError) as error:
                # It is gone again, and its event is on the way; or the store is away, which says nothing of the peer.
                log.info("agent %r can't load peer %r again yet: %s", self._name, name, error)
                self._schedule_retry(name)
                return
            except MetadataMismatchError as error:
                # Memory that two labels share has another key now (the error says which): one label at a time can't be
                # brought up to date.
                peer = self._peers.find(name)
                is_shared = "address" in error.context and any(wanted.labels.values())
                if peer is None or peer.gone is not None or not is_shared:
                    self._peers.fail(name, error)
                    return
                self._peers.end(self._engine, peer, f"it has to be loaded anew: {error}")
                wanted.labels = dict.fromkeys(wanted.labels, 0)
                self._load_again(name, wanted, agent)
                return
            except TrunklineError as error:
                log.warning("agent %r can't load peer %r again: %s", self._name, name, error)
                self._peers.fail(name, error)
                return

    def _load(self, wanted: _Wanted, publication: Publication, require: Mapping[str, str]) -> Peer:
        record = record_of_publication(publication)
        record.check(require)
        peer = self._peers.load(self._engine, record)
        presence = publication.presence
        if presence is None:
            self._membership.follow_nixl(publication.name)
        with self._lock:
            self._departures.call_off(publication.name)
            wanted.revision = max(wanted.revision, publication.revision)
            if presence is None:
                wanted.labels[publication.label] = publication.revision
            else:
                wanted.labels[publication.label] = presence.labels[publication.label].generation
                wanted.catalog = presence.catalog.sha256 if presence.catalog is not None else ""
                peer.target.is_draining = presence.state == "draining"
        return peer

    def _is_behind(self, name: str) -> bool:
        """Whether a peer changed while it was fetched, or left: events of that time were left to the fetch."""
        listing, heard = self._membership.observer.latest(name)
        peer = self._peers.find(name)
        with self._lock:
            wanted = self._wanted.get(name)
            if wanted is None or wanted.fetches or peer is None:
                return False
            if listing is None:
                return wanted.departure is not None
            if not is_listed(peer, listing):
                return heard > wanted.revision
            return listing.catalog != wanted.catalog or any(
                listing.labels.get(label, loaded) != loaded for label, loaded in wanted.labels.items()
            )

    def _catch_up(self, name: str) -> PeerEvent | None:
        """Bring a peer in line with what is listed now; watches have been told of that already."""
        listing, heard = self._membership.observer.latest(name)
        peer = self._peers.find(name)
        with self._lock:
            wanted = self._wanted.get(name)
            if wanted is None or wanted.fetches:
                return None
            departure, wanted.departure = wanted.departure, None
        # A listing from before the fetch says nothing: what is to be said of the peer is still on the way.
        if heard and heard < wanted.revision:
            return None
        if listing is not None:
            self._align(wanted, listing)
        if departure is not None and peer is not None and (listing is None or not is_listed(peer, listing)):
            told = self._departures.leave(departure)
            return told if isinstance(told, PeerSuspect) else None
        return None

    def _schedule_retry(self, name: str) -> None:
        def retry(_: Reminder) -> None:
            self._enqueue(name, partial(self._catch_up, name))

        with self._lock:
            if name in self._wanted:
                self._retries.put(name, RETRY_DELAY, retry)

    def _peer_died(self, peer: Peer) -> None:
        """A connection broke, and a new one was refused: the peer's process is gone."""
        with self._lock:
            if peer.incarnation is None:  # NIXL's don't say which they are: the next one may be there already
                return
            self._departures.call_off(peer.name)
            self.announcer.tell_unreachable(peer.incarnation, peer.name)
