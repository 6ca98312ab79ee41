"""All keys of a namespace, each known for what it is. Only keys are read, no values."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trunkline.errors import StoreAuthError
from trunkline.metadata.key import KeyKind, classify, places
from trunkline.store.contract import NO_LEASE, Entry, Get, Transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from trunkline.clock import Deadline
    from trunkline.store.contract import Store

MAX_READS = 128
"""Keys that are read at once: what etcd takes in one transaction."""

LEASE_CALLS = 8
"""How many leases are asked for at once."""

OWN_KINDS = frozenset({KeyKind.PRESENCE, KeyKind.CATALOG, KeyKind.CHUNK})
"""Keys that Trunkline alone writes, always with a lease."""


@dataclass(frozen=True, slots=True)
class AgentKey:
    """A key of an agent.

    Attributes:
        place: The namespace under which it lies.
        agent: The agent.
        kind: What it is for.
        part: The label, or the rest of a chunk's key.
        entry: The key as it was read, without its value.
    """

    place: str
    agent: str
    kind: KeyKind
    part: str
    entry: Entry

    @property
    def is_leased(self) -> bool:
        return self.entry.lease != NO_LEASE


@dataclass(frozen=True, slots=True)
class Keyspace:
    """The keys of a namespace at one revision.

    Attributes:
        namespace: The namespace.
        keys: Those that are an agent's, sorted.
        others: Those that are nobody's: of deeper namespaces, of benchmarks, of programs that share the prefix.
        revision: The revision.
    """

    namespace: str
    keys: tuple[AgentKey, ...]
    others: tuple[Entry, ...]
    revision: int

    def by_agent(self) -> dict[tuple[str, str], list[AgentKey]]:
        """Return the keys of each agent, by place and name. One name in two places is two agents."""
        found: dict[tuple[str, str], list[AgentKey]] = {}
        for key in self.keys:
            found.setdefault((key.place, key.agent), []).append(key)
        return found


def read_keyspace(store: Store, namespace: str, *, timeout: float | None) -> Keyspace:
    """Read the keys of a namespace; under the default one also those below NIXL's double slash.

    Raises:
        StoreError: The store failed.
    """
    searched = places(namespace)
    snapshot = store.list(f"{searched[0]}/", keys_only=True, timeout=timeout)
    keys, others = [], []
    for entry in snapshot.entries:
        key = _parse(searched, entry)
        if key is None:
            others.append(entry)
        else:
            keys.append(key)
    return Keyspace(namespace, tuple(keys), tuple(others), snapshot.revision)


def read_values(store: Store, batches: Iterable[Sequence[str]], deadline: Deadline) -> Iterator[dict[str, Entry]]:
    """Read some keys with their values, each batch in one transaction; yield what was there of each.

    Raises:
        StoreError: The store failed.
    """
    for batch in batches:
        result = store.transact(Transaction((), tuple(map(Get, batch))), timeout=deadline.remaining())
        yield {entry.key: entry for read in result.reads for entry in read}


def read_leases(store: Store, leases: Iterable[int], deadline: Deadline) -> Mapping[int, float | None]:
    """Return the seconds that leases have left; None for one that is gone, or that may not be looked at.

    Raises:
        StoreError: The store failed.
    """

    def ask(lease: int) -> float | None:
        try:
            return store.time_to_live(lease, timeout=deadline.remaining())
        except StoreAuthError:
            return None

    wanted = sorted(set(leases) - {NO_LEASE})
    if not wanted:
        return {}
    with ThreadPoolExecutor(min(LEASE_CALLS, len(wanted))) as threads:
        return dict(zip(wanted, threads.map(ask, wanted), strict=True))


def _parse(searched: Sequence[str], entry: Entry) -> AgentKey | None:
    for place in searched:
        found = classify(place, entry.key)
        if found is not None:
            kind, agent, part = found
            return AgentKey(place, agent, kind, part, entry)
    return None
