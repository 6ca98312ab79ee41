"""Fetching one label of each of some agents: read it, else wait for the store to say that it was written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING

from trunkline.directory.chunks import read_chunks
from trunkline.directory.listing import list_names
from trunkline.directory.publication import Publication
from trunkline.directory.watches import KeyWatches
from trunkline.errors import (
    AgentNotFoundError,
    MetadataDecodeError,
    MetadataError,
    RevisionUnavailableError,
    StoreError,
)
from trunkline.metadata.presence import FORMAT, ContentRecord, Presence, decode_presence
from trunkline.store.contract import NO_LEASE, Entry, Get, Interrupted, Snapshot, Store, Transaction, WatchEvent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from trunkline.clock import Clock, Deadline
    from trunkline.metadata.key import MetadataKey

SIMILAR_NAMES_TIMEOUT = 0.5
"""Seconds that may be spent after the deadline to name similar agents."""

MAX_READS = 128
"""Keys that are read at once: what etcd takes in one transaction."""

_NOTHING = "nothing is published there"


@dataclass(frozen=True, slots=True)
class _Found:
    """A publication, some of which may have to be read yet.

    Attributes:
        key: Where it lies.
        publication: What was read; what lies in chunks is empty.
        chunked: The records of what lies in chunks, by the publication's attribute.
        named_at: The revision of the record that says so.
    """

    key: MetadataKey
    publication: Publication
    chunked: Mapping[str, ContentRecord]
    named_at: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """One look-up.

    Attributes:
        store: Where.
        keys: The same agent and label in every namespace that is searched.
        except_incarnations: Incarnations known to be gone: what they published is passed over.
        clock: Measures waiting.
    """

    store: Store
    keys: tuple[MetadataKey, ...]
    except_incarnations: Collection[str]
    clock: Clock

    @property
    def names(self) -> list[str]:
        """The keys to read."""
        return [name for key in self.keys for name in _names(key)]

    def wait(self, entries: dict[str, Entry], revision: int, reason: str, deadline: Deadline) -> Publication:
        """Return the publication, as soon as there is one.

        All keys are watched from the revision on at which they were read: nothing written in between is missed, and
        nothing is asked for again. Events of different keys may come apart; sizes and hashes in the agent's record say
        when they fit.

        Args:
            entries: What lay under :attr:`names`.
            revision: When that was.
            reason: Why there is none in that.
            deadline: When to give up.

        Raises:
            AgentNotFoundError: There was none before the deadline.
            MetadataError: The agent's record can't be read, or only by a newer version.
            StoreError: The store failed.
        """
        found: Publication | str = reason
        outage = ""
        with KeyWatches(self.store, self.names, after=revision, clock=self.clock) as watches:
            while isinstance(found, str) and (news := watches.next(deadline.remaining())) is not None:
                name, event = news
                outage = event.reason if isinstance(event, Interrupted) else ""
                _apply(entries, name, event)
                found = self.look(entries, None, deadline)
                if isinstance(found, Publication) and found.presence is None and self._is_leased(entries):
                    # NIXL's keys have no lease: the event of this agent's record, or of its end, is still to come.
                    if name in map(str, self.keys):
                        entries, revision = _read(self.store, self.names, deadline)
                        found = self.look(entries, revision, deadline)
                    else:
                        found = f"the record of agent {found.name!r} is gone"
        if isinstance(found, str):
            raise self._not_found(found, outage, deadline)
        return found

    def look(self, entries: dict[str, Entry], revision: int | None, deadline: Deadline) -> Publication | str:
        """Return the publication, or why there is none.

        What lies in chunks is read. If that is not whole, then it was published anew meanwhile, and watches will tell,
        or it is broken until that happens.

        Args:
            entries: What lay under :attr:`names`.
            revision: When all of that did; None if it comes from watches, and so perhaps from different revisions.
            deadline: When to give up.

        Raises:
            As :meth:`wait`.
        """
        found = self._choose(entries)
        if isinstance(found, str):
            return found
        return self._complete(found, found.named_at if revision is None else revision, deadline)

    def _complete(self, found: _Found, revision: int, deadline: Deadline) -> Publication | str:
        """Read what lies in chunks; return the publication, or what is wrong with them."""
        contents: dict[str, bytes] = {}
        for name, record in found.chunked.items():
            if record.chunks is None:
                continue
            read = partial(read_chunks, self.store, found.key, record, record.chunks, deadline=deadline)
            try:
                content = read(revision=revision)
            except RevisionUnavailableError:  # history was compacted, or is not kept
                content = read(revision=0)
            if isinstance(content, str):
                return f"its {name} can't be read: {content}"
            contents[name] = content
        publication = found.publication
        return replace(
            publication,
            metadata=contents.get("metadata", publication.metadata),
            catalog=contents.get("catalog", publication.catalog),
        )

    def _choose(self, entries: dict[str, Entry]) -> _Found | str:
        """Return what was found, or why nothing was."""
        answers = [self._examine(key, entries) for key in self.keys]
        found = [answer for answer in answers if isinstance(answer, _Found)]
        if found:
            return max(found, key=lambda each: (each.publication.presence is not None, each.publication.revision))
        reasons = [answer for answer in answers if isinstance(answer, str) and answer != _NOTHING]
        return reasons[0] if reasons else _NOTHING

    def _is_leased(self, entries: dict[str, Entry]) -> bool:
        return any(entries[str(key)].lease != NO_LEASE for key in self.keys if str(key) in entries)

    def _examine(self, key: MetadataKey, entries: dict[str, Entry]) -> _Found | str:
        """Return what is published in one namespace, or why nothing is."""
        metadata, record, catalog = (entries.get(name) for name in (str(key), key.presence, key.catalog))
        if metadata is None:
            return _NOTHING
        revision = metadata.mod_revision
        if record is None:  # an agent of NIXL's own
            return _Found(key, Publication(key.agent, key.label, metadata.value, None, None, revision), {}, revision)
        presence = _decode(record)
        if presence.incarnation in self.except_incarnations:
            return f"what is published is of incarnation {presence.incarnation[:8]}, which is gone"
        if key.label not in presence.labels:
            return f"{key} exists, but its agent's record does not know of it"
        announced: dict[str, ContentRecord] = {"metadata": presence.labels[key.label]}
        if presence.catalog is not None:
            announced["catalog"] = presence.catalog
        values: dict[str, bytes] = {}
        chunked: dict[str, ContentRecord] = {}
        for name, content in announced.items():
            entry = metadata if name == "metadata" else catalog
            if content.chunks is not None:
                chunked[name] = content
            elif entry is not None and content.describes(entry.value):
                values[name] = entry.value
            else:
                return f"{key} does not match its agent's record: another program has written there"
        publication = Publication(
            key.agent, key.label, values.get("metadata", b""), values.get("catalog"), presence, revision
        )
        return _Found(key, publication, chunked, record.mod_revision)

    def _not_found(self, reason: str, outage: str, deadline: Deadline) -> AgentNotFoundError:
        key = self.keys[0]
        where = " or ".join(f"{each.namespace}/" for each in self.keys)
        similar: list[str] = []
        hint = "Check the name, and that both sides use the same store and namespace"
        if outage:
            reason = f"the store has been unreachable ({outage})"
            hint = "Check the store"
        else:
            try:
                names = list_names(self.store, key.namespace, timeout=SIMILAR_NAMES_TIMEOUT)
                similar = [name for name in get_close_matches(key.agent, names) if name != key.agent]
            except StoreError:
                pass  # the names were a help, not the matter
        return AgentNotFoundError(
            f"agent {key.agent!r} (label {key.label!r}) was not found within {deadline.elapsed:.1f} s under {where} "
            f"in {self.store.url}: {reason}. "
            + (f"Similar names: {', '.join(map(repr, similar))}. " if similar else "")
            + hint,
            agent=key.agent,
            key=str(key),
            elapsed=deadline.elapsed,
            similar=similar,
        )


def fetch_each(fetches: Sequence[Fetch], deadline: Deadline) -> Iterator[Publication]:
    """Yield what each of some look-ups in one store finds, as it is found: first all that is there.

    What is there is read many look-ups at a time, each of them at one revision. Then the first of those that found
    nothing is waited for, and by then the others may have come.

    Raises:
        As :meth:`Fetch.wait`, for the first that fails, and:
        StoreError: The store did not answer the first read.
    """
    while fetches:
        waiting: list[tuple[Fetch, dict[str, Entry], int, str]] = []
        for batch in _batches(fetches):
            entries, revision = _read(batch[0].store, [name for fetch in batch for name in fetch.names], deadline)
            for fetch in batch:
                found = fetch.look(entries, revision, deadline)
                if isinstance(found, Publication):
                    yield found
                else:
                    own = {name: entries[name] for name in fetch.names if name in entries}
                    waiting.append((fetch, own, revision, found))
        if not waiting:
            return
        first, entries, revision, reason = waiting[0]
        yield first.wait(entries, revision, reason, deadline)
        fetches = [fetch for fetch, *_ in waiting[1:]]


def _batches(fetches: Sequence[Fetch]) -> Iterator[Sequence[Fetch]]:
    """Divide look-ups into those that one transaction can read for."""
    size = MAX_READS // len(fetches[0].names)
    for start in range(0, len(fetches), size):
        yield fetches[start : start + size]


def _read(store: Store, names: list[str], deadline: Deadline) -> tuple[dict[str, Entry], int]:
    """Return what lies under some names, all at one revision, and that revision."""
    result = store.transact(Transaction((), tuple(map(Get, names))), timeout=deadline.remaining())
    return {entry.key: entry for read in result.reads for entry in read}, result.revision


def _names(key: MetadataKey) -> list[str]:
    """Return the names under which a label's publication lies: what describes it first, so that it is known first."""
    return [key.presence, key.catalog, str(key)]


def _apply(entries: dict[str, Entry], name: str, event: WatchEvent) -> None:
    """Bring what is known of one key up to date."""
    if isinstance(event, Interrupted):
        return
    current = event.entries if isinstance(event, Snapshot) else event.put
    if current:
        entries[name] = current[-1]
    elif isinstance(event, Snapshot) or event.deleted:
        entries.pop(name, None)


def _decode(record: Entry) -> Presence:
    try:
        presence = decode_presence(record.value)
    except MetadataDecodeError as error:
        raise MetadataDecodeError(
            f"the record {record.key} can't be read: {error}", field=error.field, key=record.key
        ) from error
    if not presence.is_readable:
        raise MetadataError(
            f"the record {record.key} is for readers of format {presence.min_reader}, this is {FORMAT}: "
            "a newer Trunkline is needed to use that agent",
            key=record.key,
            min_reader=presence.min_reader,
        )
    return presence
