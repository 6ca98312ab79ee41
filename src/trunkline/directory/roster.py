"""Who is there: from what the store says of keys to what a watch tells of agents. No I/O, no clock, no threads.

Theory of operation. The mirror holds what the store is known to hold, from which follows how an agent is *now*;
``_shown`` is how it was last told. Every change of keys ends in comparing the two, and what differs becomes events, so
that no order of store events and no gap between them can leave the tale wrong.

An agent whose record is gone without a last word is *missing*. A second later it is settled what that means: if most
agents went missing together, or the store was away, each becomes a *suspect* and has one TTL to come back; else it has
left. Nobody leaves by expiry while the store is away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trunkline.directory.event import (
    DirectoryEvent,
    LeaveReason,
    PeerEvent,
    PeerJoined,
    PeerLeft,
    PeerSuspect,
    PeerUpdated,
    StoreBack,
    StoreLost,
    Synced,
)
from trunkline.directory.mirror import Mirror
from trunkline.directory.view import AgentListing, DirectoryView
from trunkline.store.contract import Interrupted, Snapshot, WatchEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

SETTLE = 1.0
"""Seconds from an agent's record vanishing without a last word until it counts: a successor may claim the name, and
many may vanish together."""

MASS = 3
"""How many agents have to go missing together before that is taken for the store's fault. (With two agents, one that
dies is half of them.)"""


@dataclass(slots=True)
class _Shown:
    """An agent that was told of.

    Attributes:
        listing: As it was last told.
        due_at: When it is settled why it is missing, or when a suspect has left; None while its record is there.
    """

    listing: AgentListing
    due_at: float | None = None

    @property
    def is_missing(self) -> bool:
        """Whether its record is gone, and what that means is open."""
        return self.due_at is not None and not self.listing.is_suspect


class Roster:
    """The agents of one namespace. One thread at a time; times are those of any one monotonic clock.

    Args:
        namespace: The namespace; under the default one, NIXL's form of it counts too.
        ttl: Seconds that are given to an agent whose record does not say its TTL.
    """

    def __init__(self, namespace: str, *, ttl: float = 30.0) -> None:
        self._mirror = Mirror(namespace)
        self._ttl = ttl
        self._shown: dict[str, _Shown] = {}
        self._absent: dict[str, _Shown] = {}  # those of them whose record is gone
        self._interrupted: set[str] = set()
        self._outage = ""
        self._lost_at = 0.0
        self._back_at = float("-inf")

    def apply(self, source: str, event: WatchEvent, now: float) -> list[DirectoryEvent]:
        """Take in what a watch said.

        Args:
            source: What the watch selects: a prefix of keys.
            event: What it said.
            now: The time.
        """
        if isinstance(event, Interrupted):
            return self._lose_store(source, event.reason, now)
        events = self._find_store(source, now)
        for name in self._mirror.apply(source, event):
            events.extend(self._compare(name, now))
        if isinstance(event, Snapshot) and not any(isinstance(each, PeerLeft) for each in events):
            events.extend(self._missing(source, event.revision))
        return events

    def forget(self, source: str, others: Iterable[str], now: float) -> list[DirectoryEvent]:
        """Drop what only this source told: its watch was closed.

        Args:
            source: What it selected.
            others: What the watches that go on select.
            now: The time.
        """
        touched = self._mirror.forget(source, others)
        events = self._find_store(source, now)
        for name in touched:
            events.extend(self._compare(name, now))
        return events

    def tick(self, now: float) -> list[DirectoryEvent]:
        """Settle what is due."""
        if self._interrupted:
            return []
        events: list[DirectoryEvent] = []
        missing = [shown for shown in self._absent.values() if shown.is_missing]
        if any(_is_due(shown, now) for shown in missing):
            is_mass = len(missing) >= MASS and 2 * len(missing) > len(self._shown)
            for shown in missing:
                ttl = shown.listing.ttl or self._ttl
                if is_mass or now < self._back_at + ttl:
                    shown.listing = replace(shown.listing, is_suspect=True)
                    shown.due_at = now + ttl
                    events.append(PeerSuspect(shown.listing))
                elif _is_due(shown, now):
                    events.append(self._leave(shown, LeaveReason.EXPIRED))
        suspects = [shown for shown in self._absent.values() if shown.listing.is_suspect and _is_due(shown, now)]
        events.extend(self._leave(shown, LeaveReason.EXPIRED) for shown in suspects)
        return events

    def excuse(self, now: float) -> None:
        """Note that the store was away in some other way than by an interruption: an agent here lost its lease."""
        self._back_at = max(self._back_at, now)

    @property
    def next_due(self) -> float | None:
        """When to call :meth:`tick` next."""
        if self._interrupted:
            return None
        return min((shown.due_at for shown in self._absent.values() if shown.due_at is not None), default=None)

    def has_heard(self, sources: Iterable[str]) -> bool:
        """Return whether each of these sources has said what is there."""
        return self._mirror.has_heard(sources)

    def events_so_far(self) -> list[PeerEvent]:
        """Return what would have been told to somebody who had watched from the beginning and saw only what is left."""
        events: list[PeerEvent] = []
        for shown in self._shown.values():
            events.append(PeerJoined(replace(shown.listing, is_suspect=False)))
            if shown.listing.is_suspect:
                events.append(PeerSuspect(shown.listing))
        return events

    def outage(self) -> StoreLost | None:
        """Return the event of the outage that lasts, if one does."""
        return StoreLost(self._outage) if self._interrupted else None

    def listing(self, name: str) -> AgentListing | None:
        """Return one agent."""
        shown = self._shown.get(name)
        return None if shown is None else shown.listing

    def revision_of(self, name: str) -> int:
        """Return the revision up to which it is known what became of an agent's record; 0 if nothing is."""
        return self._mirror.revision_of(name)

    def view(self, sources: Iterable[str], now: float) -> DirectoryView:
        """Return everybody, and how old that knowledge is."""
        return DirectoryView(
            {name: shown.listing for name, shown in self._shown.items()},
            age=now - self._lost_at if self._interrupted else 0.0,
            is_synced=self.has_heard(sources),
        )

    def _lose_store(self, source: str, reason: str, now: float) -> list[DirectoryEvent]:
        is_first = not self._interrupted
        is_news = is_first or (source in self._interrupted and reason != self._outage)
        self._interrupted.add(source)
        if is_first:
            self._lost_at = now
        if not is_news:
            return []
        self._outage = reason
        return [StoreLost(reason)]

    def _find_store(self, source: str, now: float) -> list[DirectoryEvent]:
        if source not in self._interrupted:
            return []
        self._interrupted.remove(source)
        if self._interrupted:
            return []
        self._back_at = now
        for shown in self._absent.values():
            shown.due_at = now + (shown.listing.ttl or self._ttl)
        return [StoreBack()]

    def _missing(self, source: str, revision: int) -> list[DirectoryEvent]:
        """Return that an agent of NIXL's is not there, if that is what watches of its keys alone have said.

        Whoever follows one has found it: it was withdrawn before the watch began, and no change will tell.
        """
        listing = self._mirror.absent(source, revision)
        if listing is None or listing.name in self._shown:
            return []
        return [PeerLeft(listing, LeaveReason.WITHDRAWN)]

    def _compare(self, name: str, now: float) -> list[DirectoryEvent]:
        """Return the events that lead from how an agent was told to how it is."""
        shown, current = self._shown.get(name), self._mirror.current(name)
        if current is None:
            if shown is None:
                return []
            incarnations = self._mirror.incarnations(name)
            if incarnations and shown.listing.incarnation not in incarnations:
                return [self._leave(shown, LeaveReason.SUPERSEDED)]  # its successor has published nothing yet
            if incarnations or shown.listing.is_nixl:
                return [self._leave(shown, LeaveReason.WITHDRAWN)]
            if shown.due_at is None:
                shown.due_at = now + SETTLE
                self._absent[name] = shown
            return []
        self._absent.pop(name, None)
        self._shown[name] = _Shown(current)
        if shown is None:
            return [PeerJoined(current)]
        if shown.listing.incarnation != current.incarnation:
            return [PeerLeft(shown.listing, LeaveReason.SUPERSEDED), PeerJoined(current)]
        if shown.listing.is_suspect:
            return [PeerJoined(current)]
        return list(updates(shown.listing, current))

    def _leave(self, shown: _Shown, reason: LeaveReason) -> PeerLeft:
        del self._shown[shown.listing.name]
        self._absent.pop(shown.listing.name, None)
        return PeerLeft(shown.listing, reason)


def updates(before: AgentListing, now: AgentListing) -> list[PeerUpdated]:
    """Return what changed between two listings of one incarnation."""
    changed = [
        PeerUpdated(now, label, generation)
        for label, generation in now.labels.items()
        if before.labels.get(label) != generation
    ]
    changed.extend(PeerUpdated(now, label) for label in before.labels if label not in now.labels)
    is_renamed = before.catalog != now.catalog and not changed  # a label that changed brings the catalog along
    if is_renamed or (before.attributes, before.state) != (now.attributes, now.state):
        changed.append(PeerUpdated(now))
    return changed


def _is_due(shown: _Shown, now: float) -> bool:
    return shown.due_at is not None and shown.due_at <= now


SYNCED = Synced()
