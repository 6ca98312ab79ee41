"""Who is there: one row for each agent, from a few reads however many there are."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from trunkline.clock import Deadline
from trunkline.directory.directory import Directory
from trunkline.errors import DirectoryError, MetadataDecodeError, MetadataError
from trunkline.inspection.keyspace import MAX_READS, read_keyspace, read_leases, read_values
from trunkline.metadata.codec import decode
from trunkline.metadata.key import KeyKind, places, presence_prefix
from trunkline.metadata.presence import Presence, decode_presence
from trunkline.store.contract import NO_LEASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from trunkline.inspection.keyspace import AgentKey, Keyspace
    from trunkline.metadata.model import AgentMetadata
    from trunkline.store.contract import Entry, Store

MEMORY_BUDGET = 16 << 20
"""Bytes of metadata that an overview reads at most to say how much memory agents offer."""

UNKNOWN_SIZE_BATCH = 16
"""How many values whose sizes are not known are read at once without a budget: 24 MiB with etcd's usual limit."""

CHUNKS_TIMEOUT = 2.0
"""Seconds that reading one label's metadata in chunks may take, in an overview."""

_VALUE_LIMIT = 3 << 19  # etcd's usual limit of a value


@dataclass(frozen=True, slots=True)
class AgentOverview:
    """One agent at a glance.

    Attributes:
        name: Its name.
        namespace: The namespace under which its keys lie.
        state: ``ready``, ``draining``, ``withdrawn``; ``unpublished``: it is there and publishes nothing; ``no lease``:
            of NIXL's own, alive or dead; ``too new`` or ``broken``: its record can't be read.
        is_nixl: Whether it is one of NIXL's own, which have no lease.
        incarnation: 32 hexadecimal digits, new for each agent object; empty where that is not said.
        host: Where it runs; empty where that is not said.
        pid: Its process there; 0 where that is not said.
        software: Name and version of what it runs.
        opened_at: When it was opened, in seconds since 1970 by its own clock; 0 where that is not said.
        age: Seconds since then by this machine's clock; None where that is not said.
        backends: Names of its backends.
        labels: Bytes published under each label; None where that is not known.
        record_size: Bytes of its presence record; 0 for none.
        catalog_size: Bytes of its catalog; 0 for none.
        attributes: Free pairs that it published.
        memory: Bytes of memory that it offers, by kind; None if that was not read, or can't be.
        lease: The lease of its record; 0 for none.
        ttl: Seconds that its lease is granted for; 0 where that is not said.
        lease_remaining: Seconds that its lease has left; None without a lease.
        revision: The store's revision of its latest change.
    """

    name: str
    namespace: str
    state: str
    is_nixl: bool = False
    incarnation: str = ""
    host: str = ""
    pid: int = 0
    software: str = ""
    opened_at: float = 0.0
    age: float | None = None
    backends: tuple[str, ...] = ()
    labels: Mapping[str, int | None] = field(default_factory=dict)
    record_size: int = 0
    catalog_size: int = 0
    attributes: Mapping[str, str] = field(default_factory=dict)
    memory: Mapping[str, int] | None = None
    lease: int = NO_LEASE
    ttl: float = 0.0
    lease_remaining: float | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Overview:
    """All agents that were asked for.

    Attributes:
        agents: Sorted by name.
        keyspace: The keys they were made from.
        unread: How many agents' metadata was not read, because it is more than the budget in all.
    """

    agents: tuple[AgentOverview, ...]
    keyspace: Keyspace
    unread: int = 0


def read_overview(
    store: Store,
    namespace: str,
    *,
    pattern: str = "*",
    attributes: Mapping[str, str] | None = None,
    memory_budget: int | None = MEMORY_BUDGET,
    timeout: float | None,
) -> Overview:
    """Return the agents of a namespace, Trunkline's and NIXL's own.

    Keys come in one read and records in another, so that an agent that comes or goes in between may be missing; each
    lease is asked for, several at a time; metadata is read many agents at a time.

    Args:
        store: Where.
        namespace: The namespace.
        pattern: Glob pattern of names.
        attributes: Attributes that agents must have, with these values.
        memory_budget: Bytes of metadata that may be read to say how much memory agents offer; None for all of it,
            0 for none.
        timeout: Seconds for all of it.

    Raises:
        StoreError: The store failed.
    """
    deadline = Deadline(timeout)
    records: dict[tuple[str, str], Entry] = {}
    for place in places(namespace):
        prefix = presence_prefix(place)
        for entry in store.list(prefix, timeout=deadline.remaining()).entries:
            records[place, entry.key.removeprefix(prefix)] = entry
    keyspace = read_keyspace(store, namespace, timeout=deadline.remaining())
    now = time.time()
    listed = [
        agent
        for (place, name), keys in keyspace.by_agent().items()
        if fnmatchcase(name, pattern)
        and (agent := _describe(place, name, keys, records.get((place, name)), now)) is not None
        and all(agent.attributes.get(key) == value for key, value in (attributes or {}).items())
    ]
    listed.sort(key=lambda agent: (agent.name, agent.namespace))
    remaining = read_leases(store, (agent.lease for agent in listed), deadline)
    listed = [replace(agent, lease_remaining=remaining.get(agent.lease)) for agent in listed]
    read = _read_metadata(store, listed, memory_budget, deadline)
    unread = sum(bool(agent.labels) and (agent.namespace, agent.name) not in read for agent in listed)
    return Overview(
        tuple(read.get((agent.namespace, agent.name), agent) for agent in listed),
        keyspace,
        unread if memory_budget != 0 else 0,
    )


def _describe(
    place: str, name: str, keys: Sequence[AgentKey], record: Entry | None, now: float
) -> AgentOverview | None:
    """Return one agent; None if what there is of it is only on its way out."""
    revision = max(key.entry.mod_revision for key in keys)
    if record is None:
        labels = {key.part: None for key in keys if key.kind is KeyKind.LABEL and not key.is_leased}
        is_there = labels or any(key.kind is KeyKind.MARKER and not key.is_leased for key in keys)
        state = "no lease" if labels else "unpublished"
        return AgentOverview(name, place, state, is_nixl=True, labels=labels, revision=revision) if is_there else None
    bare = AgentOverview(
        name,
        place,
        "broken",
        record_size=len(record.value),
        lease=record.lease,
        revision=max(revision, record.mod_revision),
    )
    try:
        presence = decode_presence(record.value)
    except MetadataDecodeError:
        return bare
    return replace(bare, state="too new") if not presence.is_readable else _fill(bare, presence, now)


def _fill(bare: AgentOverview, presence: Presence, now: float) -> AgentOverview:
    is_unpublished = presence.state == "ready" and not presence.labels
    return replace(
        bare,
        state="unpublished" if is_unpublished else presence.state,
        incarnation=presence.incarnation,
        host=presence.process.host,
        pid=presence.process.pid,
        software=presence.software,
        opened_at=presence.opened_at,
        age=max(0.0, now - presence.opened_at) if presence.opened_at else None,
        backends=presence.backends,
        labels={label: record.size for label, record in presence.labels.items()},
        catalog_size=0 if presence.catalog is None else presence.catalog.size,
        attributes=presence.attributes,
        ttl=presence.ttl,
    )


def _read_metadata(
    store: Store, agents: Sequence[AgentOverview], budget: int | None, deadline: Deadline
) -> dict[tuple[str, str], AgentOverview]:
    """Return the agents whose metadata was read, with what it says."""
    found: dict[tuple[str, str], AgentOverview] = {}
    spent = 0
    largest = UNKNOWN_SIZE_BATCH * _VALUE_LIMIT if budget is None else budget // 4
    for batch in _batches([agent for agent in agents if agent.labels and budget != 0], largest):
        known = sum(size or 0 for agent in batch for size in agent.labels.values())
        if budget is not None and spent + known > budget:
            continue
        keys = [_label_key(agent, label) for agent in batch for label in agent.labels]
        parts = [keys[start : start + MAX_READS] for start in range(0, len(keys), MAX_READS)]
        entries = {key: entry for part in read_values(store, parts, deadline) for key, entry in part.items()}
        spent += sum(len(entry.value) for entry in entries.values())
        for agent in batch:
            values = {label: entries.get(_label_key(agent, label)) for label in agent.labels}
            sizes = {
                label: agent.labels[label] if entry is None else len(entry.value) for label, entry in values.items()
            }
            memory = _sum_memory(agent, values)
            if memory is None and not agent.is_nixl:
                memory = _sum_chunked(store, agent, deadline)
                spent += sum(size or 0 for size in agent.labels.values())
            found[agent.namespace, agent.name] = replace(
                agent, memory=memory, labels=sizes if agent.is_nixl else agent.labels
            )
    return found


def _batches(agents: Sequence[AgentOverview], largest: int) -> Iterator[list[AgentOverview]]:
    """Divide agents into those whose metadata is read at once, at most so many bytes of it, the small ones first."""

    def size(agent: AgentOverview) -> int:
        return sum(_VALUE_LIMIT if known is None else known for known in agent.labels.values())

    batch: list[AgentOverview] = []
    keys = total = 0
    for agent in sorted(agents, key=size):
        fits = keys + len(agent.labels) <= MAX_READS and total + size(agent) <= largest
        if batch and not fits:
            yield batch
            batch, keys, total = [], 0, 0
        batch.append(agent)
        keys += len(agent.labels)
        total += size(agent)
    if batch:
        yield batch


def _sum_memory(agent: AgentOverview, values: Mapping[str, Entry | None]) -> Mapping[str, int] | None:
    """Return the bytes an agent offers by kind.

    None if a value is not the one that its record describes: it changes just now, or lies elsewhere in chunks.
    """
    parts: list[AgentMetadata] = []
    for label, size in agent.labels.items():
        entry = values[label]
        if entry is None or (size is not None and size != len(entry.value)):
            return None
        try:
            parts.append(decode(entry.value))
        except MetadataDecodeError:
            return None
    return memory_by_kind(parts)


def _sum_chunked(store: Store, agent: AgentOverview, deadline: Deadline) -> Mapping[str, int] | None:
    """Return the bytes an agent offers by kind, also if its metadata lies in chunks; None if it can't be read now."""
    directory = Directory(store, namespace=agent.namespace)
    parts: list[AgentMetadata] = []
    for label in agent.labels:
        try:
            publication = directory.fetch(agent.name, label=label, timeout=deadline.remaining(CHUNKS_TIMEOUT))
            parts.append(decode(publication.metadata))
        except (DirectoryError, MetadataError):
            return None
    return memory_by_kind(parts)


def memory_by_kind(parts: Iterable[AgentMetadata]) -> dict[str, int]:
    """Return the bytes of memory that the parts of an agent's metadata offer, by kind, each region once."""
    sections: dict[str, list[NDArray[np.uint64]]] = {}
    for part in parts:
        for section in part.sections:
            sections.setdefault(section.kind.name, []).append(section.segments)
    return {kind: _total_length(found) for kind, found in sections.items()}


def _total_length(sections: Sequence[NDArray[np.uint64]]) -> int:
    """Return the bytes of some lists of segments, those that are in several counted once."""
    rows = sections[0] if len(sections) == 1 else np.unique(np.concatenate(sections), axis=0)
    length = rows[:, 1]
    return (int((length >> np.uint64(32)).sum()) << 32) + int((length & np.uint64(0xFFFFFFFF)).sum())  # no overflow


def _label_key(agent: AgentOverview, label: str) -> str:
    return f"{agent.namespace}/{agent.name}/{label}"
