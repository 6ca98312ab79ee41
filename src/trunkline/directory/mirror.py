"""What a namespace's keys are, as watches of the store have said, and how each agent is by them. No I/O, no threads."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trunkline.directory.view import AgentListing
from trunkline.errors import MetadataDecodeError
from trunkline.metadata.key import agent_of, is_agent_name, places, presence_prefix
from trunkline.metadata.presence import Presence, decode_presence
from trunkline.store.contract import NO_LEASE, Changed, Entry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = logging.getLogger(__name__)

TOMBSTONES = 4096
"""How many deleted keys are remembered, against late news of them from a slower watch."""

_MARKER = ""
_PRESENCE = None


@dataclass(frozen=True, slots=True)
class _Key:
    """A key taken apart: ``part`` is the label, or the marker's empty one, or None for the presence record."""

    place: str
    agent: str
    part: str | None


class Mirror:
    """The keys of one namespace, whatever the order and number of the watches that tell of them.

    A snapshot replaces the part that its source selects. Each key only goes forward in revisions, unless a snapshot
    shows that the store has another history. One thread at a time.

    Args:
        namespace: The namespace; under the default one, NIXL's form of it counts too.
    """

    def __init__(self, namespace: str) -> None:
        self._places = places(namespace)
        self._keys: dict[str, tuple[_Key, Entry, Presence | None]] = {}
        self._agents: dict[str, dict[str, None]] = {}  # the known keys of each agent
        self._tombstones: dict[str, int] = {}
        self._revisions: dict[str, int] = {}  # of the latest event of each source

    def apply(self, source: str, event: Snapshot | Changed) -> Iterable[str]:
        """Take in what a watch said; return the agents whose keys changed.

        Args:
            source: What the watch selects: a prefix of keys.
            event: What it said.
        """
        touched: dict[str, None] = {}
        if isinstance(event, Snapshot):
            self._take_snapshot(source, event, touched)
        else:
            for entry in event.put:
                self._put(entry, touched)
            for key in event.deleted:
                self._delete(key, event.revision, touched)
        self._revisions[source] = event.revision
        return touched

    def forget(self, source: str, others: Iterable[str]) -> Iterable[str]:
        """Drop what only this source told, but for records; return the agents whose keys changed.

        Args:
            source: What it selected.
            others: What the watches that go on select.
        """
        touched: dict[str, None] = {}
        kept = tuple(other for other in others if other != source)
        for key in [key for key in self._keys if key.startswith(source) and not key.startswith(kept)]:
            if self._keys[key][0].part is not _PRESENCE:
                self._remove(key, touched)
        self._revisions.pop(source, None)
        return touched

    def has_heard(self, sources: Iterable[str]) -> bool:
        """Return whether each of these sources has said what is there."""
        return all(source in self._revisions for source in sources)

    def revision_of(self, name: str) -> int:
        """Return the revision up to which it is known what became of an agent's record; 0 if nothing is."""
        keys = [f"{presence_prefix(place)}{name}" for place in self._places]
        known = [self._keys[key][1].mod_revision for key in keys if key in self._keys]
        return max([*known, *(self._tombstones.get(key, 0) for key in keys)])

    def incarnations(self, name: str) -> set[str]:
        """Return the incarnations that an agent's records name, whether or not they publish anything."""
        return {presence.incarnation for _, _, presence in self._known(name) if presence is not None}

    def current(self, name: str) -> AgentListing | None:
        """Return how an agent is now; None if there is nothing of it to fetch."""
        keys = self._known(name)
        records = [(entry.mod_revision, key.place, presence) for key, entry, presence in keys if presence is not None]
        published = [record for record in records if record[2].is_published]
        if published:
            revision, place, presence = max(published, key=lambda record: record[0])
            return AgentListing.of_presence(name, place, presence, revision)
        if records:
            return None
        # NIXL gives its keys no lease: what has one is left over from an agent of ours whose record is gone already.
        # It puts the marker when it starts: labels that are older are left over from the one before.
        markers = {key.place: entry.mod_revision for key, entry, _ in keys if key.part == _MARKER}
        labels = {
            key: entry
            for key, entry, _ in keys
            if key.part and entry.lease == NO_LEASE and entry.mod_revision >= markers.get(key.place, 0)
        }
        if not labels:
            return None
        place = max(labels, key=lambda key: labels[key].mod_revision).place
        return AgentListing(
            name=name,
            incarnation=str(markers.get(place, 0)),
            labels={key.part: entry.mod_revision for key, entry in labels.items() if key.part and key.place == place},
            revision=max(entry.mod_revision for entry in labels.values()),
            namespace=place,
            is_nixl=True,
        )

    def absent(self, source: str, revision: int) -> AgentListing | None:
        """Return the agent whose keys alone a source selects, as a listing with nothing in it, if all such sources of
        it were heard; None for other sources.

        Args:
            source: What a watch selects.
            revision: The revision to put into the listing.
        """
        key = self._parse(source)
        if key is None or not self.has_heard(f"{place}/{key.agent}/" for place in self._places):
            return None
        return AgentListing(key.agent, "0", revision=revision, namespace=key.place, is_nixl=True)

    def _known(self, name: str) -> list[tuple[_Key, Entry, Presence | None]]:
        return [self._keys[key] for key in self._agents.get(name, ())]

    def _take_snapshot(self, source: str, snapshot: Snapshot, touched: dict[str, None]) -> None:
        is_other_history = snapshot.revision < self._revisions.get(source, 0)
        if is_other_history:
            self._tombstones.clear()
        present = {entry.key for entry in snapshot.entries}
        for key in [key for key in self._keys if key.startswith(source) and key not in present]:
            if is_other_history or self._keys[key][1].mod_revision <= snapshot.revision:
                self._delete(key, snapshot.revision, touched, is_certain=True)
        for entry in snapshot.entries:
            # What was known up to this revision counts no more: not even if it seems later, as it does after the
            # cluster was replaced by one whose revisions are higher.
            known = self._keys.get(entry.key)
            if known is not None and (is_other_history or known[1].mod_revision <= snapshot.revision):
                self._remove(entry.key, touched)
            if self._tombstones.get(entry.key, 0) <= snapshot.revision:
                self._tombstones.pop(entry.key, None)
            self._put(entry, touched)

    def _put(self, entry: Entry, touched: dict[str, None]) -> None:
        parsed = self._parse(entry.key)
        if parsed is None:
            return
        known = self._keys.get(entry.key)
        latest = known[1].mod_revision if known else self._tombstones.get(entry.key, 0)
        if entry.mod_revision <= latest:
            return
        presence = None
        if parsed.part is _PRESENCE:
            try:
                presence = decode_presence(entry.value)
            except MetadataDecodeError as error:
                _log.warning("ignoring the record %s: %s", entry.key, error)
                self._remove(entry.key, touched)
                return
        # Values other than records may be large, and are not looked at.
        kept = entry if presence is not None else replace(entry, value=b"")
        self._keys[entry.key] = (parsed, kept, presence)
        self._agents.setdefault(parsed.agent, {})[entry.key] = None
        touched[parsed.agent] = None

    def _delete(self, key: str, revision: int, touched: dict[str, None], *, is_certain: bool = False) -> None:
        known = self._keys.get(key)
        if known is not None and (is_certain or known[1].mod_revision <= revision):
            self._remove(key, touched)
        self._tombstones[key] = max(revision, self._tombstones.pop(key, 0))
        if len(self._tombstones) > TOMBSTONES:
            del self._tombstones[next(iter(self._tombstones))]

    def _remove(self, key: str, touched: dict[str, None]) -> None:
        known = self._keys.pop(key, None)
        if known is None:
            return
        agent = known[0].agent
        keys = self._agents[agent]
        del keys[key]
        if not keys:
            del self._agents[agent]
        touched[agent] = None

    def _parse(self, key: str) -> _Key | None:
        for place in self._places:
            prefix = presence_prefix(place)
            if key.startswith(prefix):
                name = key.removeprefix(prefix)
                return _Key(place, name, _PRESENCE) if is_agent_name(name) else None
            agent = agent_of(place, key)
            if agent is not None:
                return _Key(place, agent, key.removeprefix(f"{place}/{agent}/"))
        return None
