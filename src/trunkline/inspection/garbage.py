"""Keys that nobody will take back: finding them, and deleting those that were agreed on.

A key with a lease is never touched, nor anything of an agent that has one: the lease takes it along. etcd does not say
how old a key is, so none counts as left over for its age.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from trunkline.clock import Deadline
from trunkline.errors import ConfigurationError
from trunkline.inspection.keyspace import OWN_KINDS, read_keyspace
from trunkline.metadata.key import KeyKind, MetadataKey, places
from trunkline.store.contract import NO_LEASE, Delete, KeyHasRevision, KeyIsAbsent, Transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trunkline.inspection.keyspace import AgentKey, Keyspace
    from trunkline.store.contract import Entry, Store

MAX_DELETES = 100
"""Keys that are deleted at once; etcd takes 128 operations."""

BENCHMARK = "xferbench"
"""NIXLBench's own prefix. It gives no lease to most of its keys, and a run that ended badly leaves them behind."""


class Reason(StrEnum):
    """Why a key is left over."""

    OWN = "own key without a lease"
    """Trunkline gives each of its keys a lease, so whoever wrote this one can't take it back."""
    STALE = "older than its agent's start"
    """Published before NIXL's agent of that name started anew: it leads peers to its predecessor."""
    NIXL = "NIXL agent, perhaps dead"
    """NIXL gives no key a lease, so nothing tells whether the agent lives; only those named go."""
    MARKER = "marker without metadata"
    """NIXL's marker alone: an agent that has not published, or the rest of one that died; only those named go."""
    BENCHMARK = "benchmark group that nobody holds"
    """A group of NIXLBench in which no worker's rank has a lease any more."""


@dataclass(frozen=True, slots=True)
class LeftOver:
    """Keys that go together or not at all.

    Attributes:
        owner: The agent, or the benchmark's group.
        reason: Why they are left over.
        entries: The keys, as they were seen.
        is_chosen: Whether they are to be deleted: of NIXL's own agents only those that were named.
        absent: Keys that must not be there: the presence record of an agent that has come since.
    """

    owner: str
    reason: Reason
    entries: tuple[Entry, ...]
    is_chosen: bool
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is left over in a namespace.

    Attributes:
        namespace: The namespace.
        prefix: What all keys start with that were looked at.
        left_over: All of it, chosen or not.
        revision: The store's revision at which it was looked for.
    """

    namespace: str
    prefix: str
    left_over: tuple[LeftOver, ...]
    revision: int

    @property
    def chosen(self) -> tuple[LeftOver, ...]:
        return tuple(each for each in self.left_over if each.is_chosen)


@dataclass(frozen=True, slots=True)
class Collected:
    """What came of deleting.

    Attributes:
        deleted: Keys that are gone now.
        kept: Keys that stay, since they or others of their owner changed after they were seen.
    """

    deleted: tuple[str, ...]
    kept: tuple[str, ...]


def find_left_over(store: Store, namespace: str, *, nixl_agents: str | None = None, timeout: float | None) -> Plan:
    """Look for keys that nobody will take back. Reads keys only.

    Args:
        store: Where.
        namespace: The namespace; nothing outside it is read. ``xferbench``, with no slash before it, is
            NIXLBench's own.
        nixl_agents: Glob pattern of NIXL's own agents that are known to be dead; None for none.
        timeout: Seconds.

    Raises:
        ConfigurationError: The namespace can't be one.
        StoreError: The store failed.
    """
    if namespace.partition("/")[0] == BENCHMARK:
        prefix = f"{namespace.rstrip('/')}/"
        snapshot = store.list(prefix, keys_only=True, timeout=timeout)
        return Plan(namespace, prefix, tuple(_find_groups(f"{BENCHMARK}/", snapshot.entries)), snapshot.revision)
    MetadataKey(namespace, "any")  # checks the namespace
    return left_over_in(read_keyspace(store, namespace, timeout=timeout), nixl_agents=nixl_agents)


def left_over_in(keyspace: Keyspace, *, nixl_agents: str | None = None) -> Plan:
    """As :func:`find_left_over`, in keys that have been read."""
    namespace = keyspace.namespace
    left_over = [
        each for (place, name), keys in keyspace.by_agent().items() for each in _examine(place, name, keys, nixl_agents)
    ]
    left_over += _find_groups(f"{namespace}/{BENCHMARK}/", keyspace.others)
    return Plan(namespace, f"{places(namespace)[0]}/", tuple(left_over), keyspace.revision)


def collect(store: Store, plan: Plan, *, timeout: float | None) -> Collected:
    """Delete what a plan chose, each owner's keys only if they are still as they were seen.

    Raises:
        ConfigurationError: A key lies outside the plan's namespace, or has a lease.
        StoreError: The store failed; what was deleted before stays deleted.
    """
    deadline = Deadline(timeout)
    deleted: list[str] = []
    kept: list[str] = []
    for each in plan.chosen:
        for start in range(0, len(each.entries), MAX_DELETES):
            entries = each.entries[start : start + MAX_DELETES]
            for entry in entries:
                if not entry.key.startswith(plan.prefix) or entry.lease != NO_LEASE:
                    raise ConfigurationError(f"{entry.key!r} is not to be deleted: it is not left over", key=entry.key)
            transaction = Transaction(
                (
                    *(KeyHasRevision(entry.key, entry.mod_revision) for entry in entries),
                    *(KeyIsAbsent(key) for key in each.absent),
                ),
                tuple(Delete(entry.key) for entry in entries),
            )
            result = store.transact(transaction, timeout=deadline.remaining())
            (deleted if result.succeeded else kept).extend(entry.key for entry in entries)
    return Collected(tuple(deleted), tuple(kept))


def _examine(place: str, name: str, keys: Sequence[AgentKey], nixl_agents: str | None) -> list[LeftOver]:
    """Return what is left over of one name."""
    if any(key.is_leased for key in keys):
        return []
    found = []
    own = tuple(key.entry for key in keys if key.kind in OWN_KINDS)
    absent = tuple(() if any(key.kind is KeyKind.PRESENCE for key in keys) else (MetadataKey(place, name).presence,))
    if own:
        found.append(LeftOver(name, Reason.OWN, own, is_chosen=True, absent=absent))
    marker = next((key.entry for key in keys if key.kind is KeyKind.MARKER), None)
    labels = [key.entry for key in keys if key.kind is KeyKind.LABEL]
    since = marker.mod_revision if marker is not None else 0
    stale = tuple(label for label in labels if label.mod_revision < since)
    if stale:
        found.append(LeftOver(name, Reason.STALE, stale, is_chosen=True, absent=absent))
    theirs = tuple(entry for entry in (marker, *labels) if entry is not None and entry not in stale)
    if theirs:
        reason = Reason.NIXL if len(labels) > len(stale) else Reason.MARKER
        is_named = nixl_agents is not None and fnmatchcase(name, nixl_agents)
        found.append(LeftOver(name, reason, theirs, is_chosen=is_named, absent=absent))
    return found


def _find_groups(prefix: str, entries: Iterable[Entry]) -> list[LeftOver]:
    """Return the groups of benchmarks in which no key has a lease."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        group, slash, _ = entry.key.removeprefix(prefix).partition("/")
        if entry.key.startswith(prefix) and slash and group:
            groups.setdefault(group, []).append(entry)
    return [
        LeftOver(group, Reason.BENCHMARK, tuple(found), is_chosen=True)
        for group, found in groups.items()
        if all(entry.lease == NO_LEASE for entry in found)
    ]
