"""What a store is: small values under string keys, transactions, leases and watches.

A store knows nothing of agents or metadata. Keys are ``str`` (UTF-8 on the wire; bytes of foreign keys
that are not UTF-8 appear as surrogate escapes), values are ``bytes``. Revisions are those of etcd: one
counter for the whole store, which every successful write raises.

Every method may be called from any thread, waits at most its ``timeout`` in seconds, and raises only
errors of the tree under :class:`trunkline.errors.StoreError` (or ``ClosedError``, ``ForkedError``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Hashable, Iterator
    from types import TracebackType

NO_LEASE = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One key as it was at some revision."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int = NO_LEASE


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All entries of a selection at one revision. It replaces whatever was known before: keys not in it are gone."""

    entries: tuple[Entry, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes
    lease: int = NO_LEASE


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one key, or with ``prefix`` every key that starts with it."""

    key: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Get:
    """Read one key, or with ``prefix`` every key that starts with it.

    With a ``revision`` other than 0 it is read as it was then. If the store does not hold that revision (any more; a
    store may hold none but the latest) the transaction raises RevisionUnavailableError.
    """

    key: str
    prefix: bool = False
    revision: int = 0


@dataclass(frozen=True, slots=True)
class KeyIsAbsent:
    key: str


@dataclass(frozen=True, slots=True)
class KeyHasLease:
    key: str
    lease: int


@dataclass(frozen=True, slots=True)
class KeyHasRevision:
    key: str
    mod_revision: int


Condition: TypeAlias = KeyIsAbsent | KeyHasLease | KeyHasRevision
Operation: TypeAlias = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class Transaction:
    """If all conditions hold do ``then``, else ``otherwise``; one revision for all of it.

    One key must not be written twice in one branch (etcd refuses that).
    """

    conditions: tuple[Condition, ...]
    then: tuple[Operation, ...]
    otherwise: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """What a transaction did.

    Attributes:
        succeeded: Whether the conditions held.
        revision: The store's revision after it.
        reads: For each Get of the branch taken, in order, the entries found.
    """

    succeeded: bool
    revision: int
    reads: tuple[tuple[Entry, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Changed:
    """Changes that became visible together: every key of ``put`` and ``deleted`` up to ``revision``, in order."""

    put: tuple[Entry, ...]
    deleted: tuple[str, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The store can't be reached, or it took the right to watch away; what was known may be out of date. A Snapshot or
    Changed follows when that is over.
    """

    reason: str


WatchEvent: TypeAlias = Snapshot | Changed | Interrupted


class Watch(Protocol):
    """Changes of one key or prefix, in order, without gaps.

    If history was compacted, the watch cancelled by the server, or the cluster replaced, a fresh Snapshot
    is delivered and the watch goes on by itself.
    """

    def next(self, timeout: float | None) -> WatchEvent | None:
        """Wait for the next event; None when ``timeout`` seconds passed. Raises ClosedError once closed,
        StoreAuthError if the right to watch is missing. One that was taken away after the watch had begun is an
        Interrupted that says so; when it is given back the watch goes on by itself.
        """
        ...

    def close(self) -> None:
        """Stop. Idempotent; wakes a thread that waits in :meth:`next`."""
        ...

    def __iter__(self) -> Iterator[WatchEvent]:
        """Iterate until closed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Lease(Protocol):
    """A grant that the store client keeps alive in the background until it is closed, orphaned or lost."""

    @property
    def id(self) -> int: ...

    @property
    def ttl(self) -> float:
        """Seconds, as the store granted it."""
        ...

    @property
    def is_lost(self) -> bool:
        """True once the store said that the lease does not exist, or it can't have survived."""
        ...

    def close(self, timeout: float | None = None) -> None:
        """Revoke the lease: its keys vanish now. Idempotent. If the store is away the keys go with the TTL."""
        ...

    def orphan(self) -> None:
        """Stop refreshing without revoking: the keys vanish when the TTL has run out."""
        ...


class Store(ABC):
    """A place to keep metadata. See the module's text for the rules all methods share."""

    @property
    @abstractmethod
    def url(self) -> str:
        """How the store was named, without secrets: for messages."""

    @property
    @abstractmethod
    def identity(self) -> Hashable:
        """Equal for handles of this process that lead to the same data with the same rights."""

    @abstractmethod
    def share(self) -> Store:
        """Return another handle to the same data, with leases and watches of its own, which is closed by itself."""

    @abstractmethod
    def get(self, key: str, *, timeout: float | None) -> tuple[Entry | None, int]:
        """Return the key's entry (or None) and the revision of that answer, from which a watch can go on."""

    @abstractmethod
    def list(self, prefix: str, *, keys_only: bool = False, timeout: float | None) -> Snapshot:
        """Return all entries whose key starts with ``prefix``, sorted by key (values empty if ``keys_only``)."""

    @abstractmethod
    def transact(self, transaction: Transaction, *, timeout: float | None) -> TransactionResult:
        """Run a transaction. It is sent again after an outage only if a condition makes that safe, or it only reads."""

    @abstractmethod
    def grant(self, ttl: float, *, on_lost: Callable[[], None] | None = None, timeout: float | None) -> Lease:
        """Grant a lease and keep it alive. ``on_lost`` is called once, from a background thread, if it is lost."""

    @abstractmethod
    def revoke(self, lease: int, *, timeout: float | None) -> bool:
        """Revoke any lease by number; its keys vanish. Return False if there was none."""

    @abstractmethod
    def time_to_live(self, lease: int, *, timeout: float | None) -> float | None:
        """Return the seconds a lease has left, or None if there is none."""

    @abstractmethod
    def watch(
        self, key: str, *, prefix: bool = False, after: int | None = None, wake: threading.Event | None = None
    ) -> Watch:
        """Watch one key (or prefix). With ``after`` changes later than that revision are delivered;
        without it a Snapshot comes first, even when empty. Returns at once, before the server has answered.

        ``wake`` is set whenever there may be something to take, so that one thread can wait on several watches: it
        clears the event, takes with a timeout of 0 from each, and waits on the event if there was nothing.
        """

    @abstractmethod
    def close(self) -> None:
        """Close watches and stop refreshing leases (they are orphaned, not revoked). Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
