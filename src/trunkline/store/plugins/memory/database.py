"""The state behind a memory store: keys with revisions, transactions, leases and history, as etcd has them.

Pure and not thread-safe: no clock, no waiting. :mod:`trunkline.store.plugins.memory.server` adds both.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trunkline.errors import RevisionUnavailableError, StoreRequestError
from trunkline.store.contract import (
    NO_LEASE,
    Changed,
    Condition,
    Delete,
    Entry,
    Get,
    KeyHasLease,
    KeyIsAbsent,
    Put,
    Snapshot,
    Transaction,
    TransactionResult,
)
from trunkline.store.limits import check_transaction, matches

if TYPE_CHECKING:
    from collections.abc import Iterable

HISTORY = 1000
"""How many revisions a watch or a read can go back."""


@dataclass(slots=True)
class _Grant:
    """A lease: its keys, and when it ends (None while somebody keeps it alive)."""

    ttl: float
    expires_at: float | None
    keys: set[str] = field(default_factory=set)


class Database:
    """Keys, leases and a bounded history of changes.

    Attributes:
        revision: That of the last change; 1 when new, as in etcd.
    """

    def __init__(self) -> None:
        self.revision = 1
        self._entries: dict[str, Entry] = {}
        self._grants: dict[int, _Grant] = {}
        self._history: deque[Changed] = deque(maxlen=HISTORY)
        self._replaced: deque[tuple[Entry, ...]] = deque(maxlen=HISTORY)  # by each of these
        self._next_lease = 1

    def select(self, key: str, *, prefix: bool = False, revision: int = 0) -> tuple[Entry, ...]:
        """Return the entries of one key or prefix, sorted by key: as they are, or as they were at a revision.

        Raises:
            RevisionUnavailableError: The history does not hold that revision.
        """
        entries = self._entries_at(revision) if revision else self._entries
        if not prefix:
            entry = entries.get(key)
            return () if entry is None else (entry,)
        return tuple(entries[name] for name in sorted(entries) if name.startswith(key))

    def transact(self, transaction: Transaction) -> TransactionResult:
        """Run a transaction; the revision rises by one if it changes anything.

        Raises:
            StoreRequestError: It writes a key twice, names an empty key, or puts on an unknown lease.
            RevisionUnavailableError: It reads at a revision that the history does not hold.
            StoreLimitError: It is over 1.5 MiB or 128 operations.
        """
        check_transaction(transaction, "memory store")
        succeeded = all(self._holds(condition) for condition in transaction.conditions)
        branch = transaction.then if succeeded else transaction.otherwise
        for operation in branch:
            if isinstance(operation, Get) and operation.revision:
                self._check_revision(operation.revision)
            if isinstance(operation, Put) and operation.lease not in (NO_LEASE, *self._grants):
                raise StoreRequestError(
                    f"memory store: put of {operation.key!r} with unknown lease {operation.lease:x}"
                )
        put: list[Entry] = []
        replaced: list[Entry] = []
        deleted: list[str] = []
        reads: list[tuple[Entry, ...]] = []
        for operation in branch:
            match operation:
                case Get():
                    reads.append(self.select(operation.key, prefix=operation.prefix, revision=operation.revision))
                case Put():
                    replaced.extend(self.select(operation.key))
                    put.append(self._put(operation))
                case Delete():
                    gone = self.select(operation.key, prefix=operation.prefix)
                    deleted.extend(entry.key for entry in gone)
                    replaced.extend(gone)
                    self._remove(gone)
        self._commit(put, deleted, replaced)
        return TransactionResult(succeeded, self.revision, tuple(reads))

    def grant(self, ttl: float) -> int:
        """Make a lease that lives until it is revoked or :meth:`expire_after` is called; return its number."""
        lease = self._next_lease
        self._next_lease += 1
        self._grants[lease] = _Grant(ttl, None)
        return lease

    def revoke(self, lease: int) -> bool:
        """End a lease and delete its keys in one revision; return whether it existed."""
        grant = self._grants.pop(lease, None)
        if grant is None:
            return False
        gone = tuple(self._entries[key] for key in sorted(grant.keys))
        self._remove(gone)
        self._commit([], [entry.key for entry in gone], gone)
        return True

    def expire_after(self, lease: int, now: float) -> None:
        """Let a lease run out one TTL from now; an unknown one is left alone."""
        if lease in self._grants:
            grant = self._grants[lease]
            grant.expires_at = now + grant.ttl

    def expire(self, now: float) -> bool:
        """Revoke the leases that have run out; return whether there were any."""
        over = [
            lease for lease, grant in self._grants.items() if grant.expires_at is not None and grant.expires_at <= now
        ]
        for lease in over:
            self.revoke(lease)
        return bool(over)

    @property
    def next_expiry(self) -> float | None:
        """When the next lease runs out, or None."""
        return min((grant.expires_at for grant in self._grants.values() if grant.expires_at is not None), default=None)

    def time_to_live(self, lease: int, now: float) -> float | None:
        """Return the seconds a lease has left (its TTL while it is kept alive), or None."""
        grant = self._grants.get(lease)
        if grant is None:
            return None
        return grant.ttl if grant.expires_at is None else max(0.0, grant.expires_at - now)

    def change_after(self, revision: int, key: str, *, prefix: bool) -> Changed | Snapshot | None:
        """Return the first change of a selection later than ``revision``; a snapshot if history no longer
        holds it; None if there is none yet.
        """
        if not self._history or self._history[-1].revision <= revision:
            return None
        if revision < self._history[0].revision - 1:
            return Snapshot(self.select(key, prefix=prefix), self.revision)
        for change in list(self._history)[revision + 1 - self._history[0].revision :]:
            put = tuple(entry for entry in change.put if matches(entry.key, key, prefix=prefix))
            deleted = tuple(name for name in change.deleted if matches(name, key, prefix=prefix))
            if put or deleted:
                return Changed(put, deleted, change.revision)
        return None

    def _holds(self, condition: Condition) -> bool:
        entry = self._entries.get(condition.key)
        match condition:
            case KeyIsAbsent():
                return entry is None
            case KeyHasLease():
                return (NO_LEASE if entry is None else entry.lease) == condition.lease
            case _:
                return (0 if entry is None else entry.mod_revision) == condition.mod_revision

    def _put(self, put: Put) -> Entry:
        old = self._entries.get(put.key)
        revision = self.revision + 1
        entry = Entry(put.key, put.value, old.create_revision if old else revision, revision, put.lease)
        if old is not None:
            self._detach(old)
        if put.lease != NO_LEASE:
            self._grants[put.lease].keys.add(put.key)
        self._entries[put.key] = entry
        return entry

    def _remove(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            self._detach(entry)
            del self._entries[entry.key]

    def _detach(self, entry: Entry) -> None:
        grant = self._grants.get(entry.lease)
        if grant is not None:
            grant.keys.discard(entry.key)

    def _commit(self, put: Iterable[Entry], deleted: Iterable[str], replaced: Iterable[Entry]) -> None:
        change = Changed(tuple(put), tuple(deleted), self.revision + 1)
        if change.put or change.deleted:
            self.revision = change.revision
            self._history.append(change)
            self._replaced.append(tuple(replaced))

    def _entries_at(self, revision: int) -> dict[str, Entry]:
        """Return the entries of a revision, by undoing what came later."""
        self._check_revision(revision)
        entries = dict(self._entries)
        for change, replaced in zip(reversed(self._history), reversed(self._replaced), strict=True):
            if change.revision <= revision:
                break
            for entry in change.put:
                entries.pop(entry.key, None)
            entries.update((entry.key, entry) for entry in replaced)
        return entries

    def _check_revision(self, revision: int) -> None:
        oldest = self._history[0].revision - 1 if self._history else self.revision
        if not oldest <= revision <= self.revision:
            raise RevisionUnavailableError(
                f"memory store: required revision {revision}, of {oldest} to {self.revision}", revision=revision
            )
