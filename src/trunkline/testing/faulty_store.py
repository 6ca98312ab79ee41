"""A store that fails as told: what a bad network does to transactions and watches, without one."""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Self

from trunkline.errors import StoreUnavailableError
from trunkline.store.contract import (
    Entry,
    Interrupted,
    Lease,
    Snapshot,
    Store,
    Transaction,
    TransactionResult,
    Watch,
    WatchEvent,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Hashable, Iterator
    from types import TracebackType


class Fault(Enum):
    """What happens to one transaction."""

    NONE = auto()
    LOST_REQUEST = auto()
    """It never arrives: StoreUnavailableError."""
    LOST_ANSWER = auto()
    """It is carried out: StoreUnavailableError all the same."""
    REPEATED = auto()
    """The first answer is lost, and the client sends it again."""


class FaultyStore(Store):
    """Passes everything to another store, with faults, and keeps what was asked of it.

    Args:
        store: Does the work; closed with this one.

    Attributes:
        faults: For the next transactions, in order; none when used up.
        outages: Reasons with which the next watch begins, as interruptions.
        transactions: Those it was given.
        leases: Those it granted.
        watched: Keys and prefixes that were watched.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.faults: deque[Fault] = deque()
        self.outages: list[str] = []
        self.transactions: list[Transaction] = []
        self.leases: list[Lease] = []
        self.watched: list[str] = []

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def identity(self) -> Hashable:
        return self._store.identity

    def share(self) -> Store:
        """Return a handle without faults."""
        return self._store.share()

    def get(self, key: str, *, timeout: float | None) -> tuple[Entry | None, int]:
        return self._store.get(key, timeout=timeout)

    def list(self, prefix: str, *, keys_only: bool = False, timeout: float | None) -> Snapshot:
        return self._store.list(prefix, keys_only=keys_only, timeout=timeout)

    def transact(self, transaction: Transaction, *, timeout: float | None) -> TransactionResult:
        self.transactions.append(transaction)
        fault = self.faults.popleft() if self.faults else Fault.NONE
        if fault is Fault.LOST_REQUEST:
            raise StoreUnavailableError("the request was lost")
        result = self._store.transact(transaction, timeout=timeout)
        if fault is Fault.LOST_ANSWER:
            raise StoreUnavailableError("the answer was lost")
        return self._store.transact(transaction, timeout=timeout) if fault is Fault.REPEATED else result

    def grant(self, ttl: float, *, on_lost: Callable[[], None] | None = None, timeout: float | None) -> Lease:
        lease = self._store.grant(ttl, on_lost=on_lost, timeout=timeout)
        self.leases.append(lease)
        return lease

    def revoke(self, lease: int, *, timeout: float | None) -> bool:
        return self._store.revoke(lease, timeout=timeout)

    def time_to_live(self, lease: int, *, timeout: float | None) -> float | None:
        return self._store.time_to_live(lease, timeout=timeout)

    def watch(
        self, key: str, *, prefix: bool = False, after: int | None = None, wake: threading.Event | None = None
    ) -> Watch:
        outages, self.outages = self.outages, []
        self.watched.append(key)
        return _InterruptedWatch(self._store.watch(key, prefix=prefix, after=after, wake=wake), outages)

    def close(self) -> None:
        self._store.close()


class _InterruptedWatch:
    def __init__(self, watch: Watch, outages: list[str]) -> None:
        self._watch = watch
        self._outages = deque(outages)

    def next(self, timeout: float | None) -> WatchEvent | None:
        return Interrupted(self._outages.popleft()) if self._outages else self._watch.next(timeout)

    def close(self) -> None:
        self._watch.close()

    def __iter__(self) -> Iterator[WatchEvent]:
        while self._outages:
            yield Interrupted(self._outages.popleft())
        yield from self._watch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
