"""A roster with a clock that a test moves, records to give it, and its events in short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.directory.event import PeerJoined, PeerLeft, PeerSuspect, PeerUpdated
from trunkline.directory.roster import Roster
from trunkline.metadata.presence import ContentRecord, LabelRecord, Presence, encode_presence
from trunkline.store.contract import Changed, Entry, Interrupted, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trunkline.directory.event import DirectoryEvent
    from trunkline.metadata.presence import State

RECORDS, ALL = "/prod/.presence/", "/prod/"
TTL = 10.0
ONE, TWO = "1" * 32, "2" * 32
SHA = "0" * 64


def record(
    incarnation: str = ONE,
    labels: dict[str, int] | None = None,
    *,
    state: State = "ready",
    attributes: dict[str, str] | None = None,
) -> bytes:
    return encode_presence(
        Presence(
            incarnation=incarnation,
            labels={
                label: LabelRecord(1, SHA, generation)
                for label, generation in ({"metadata": 1} if labels is None else labels).items()
            },
            state=state,
            attributes=attributes or {},
            ttl=TTL,
            catalog=ContentRecord(1, SHA),
        )
    )


def entry(name: str, value: bytes, revision: int, *, prefix: str = RECORDS) -> Entry:
    return Entry(prefix + name, value, revision, revision, lease=7)


class Bench:
    """A roster with a clock that a test moves."""

    def __init__(self, namespace: str = "/prod") -> None:
        self.roster = Roster(namespace, ttl=TTL)
        self.now = 0.0

    def snapshot(self, *entries: Entry, revision: int = 1, source: str = RECORDS) -> list[DirectoryEvent]:
        return self.roster.apply(source, Snapshot(entries, revision), self.now)

    def put(self, *entries: Entry, source: str = RECORDS) -> list[DirectoryEvent]:
        return self.roster.apply(source, Changed(entries, (), entries[-1].mod_revision), self.now)

    def delete(self, *keys: str, revision: int, source: str = RECORDS) -> list[DirectoryEvent]:
        return self.roster.apply(source, Changed((), keys, revision), self.now)

    def interrupt(self, source: str = RECORDS) -> list[DirectoryEvent]:
        return self.roster.apply(source, Interrupted("gone"), self.now)

    def pass_time(self, seconds: float) -> list[DirectoryEvent]:
        self.now += seconds
        return self.roster.tick(self.now)

    def quiet(self) -> list[DirectoryEvent]:
        """Tick past everything that is due."""
        events: list[DirectoryEvent] = []
        while (due := self.roster.next_due) is not None:
            self.now = max(self.now, due)
            events.extend(self.roster.tick(self.now))
        return events

    @property
    def names(self) -> list[str]:
        return sorted(self.roster.view([RECORDS], self.now))


def told(events: Iterable[DirectoryEvent]) -> list[str]:
    """Events in short: ``joined a``, ``left a expired``."""
    short = []
    for event in events:
        kind = type(event).__name__.removeprefix("Peer").lower()
        if isinstance(event, PeerLeft):
            short.append(f"left {event.name} {event.reason}")
        elif isinstance(event, PeerUpdated):
            short.append(f"updated {event.name} {event.label} {event.generation}")
        else:
            short.append(f"{kind} {event.name}" if isinstance(event, (PeerJoined, PeerSuspect)) else kind)
    return short
