"""A store in Redis. Its rules are :mod:`trunkline.store.contract`'s; the work is done by ``script.lua``."""

from __future__ import annotations

import math
import secrets
import threading
from typing import TYPE_CHECKING
from weakref import WeakSet

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.errors import ClosedError
from trunkline.store.contract import Entry, Get, Lease, Snapshot, Store, Transaction, TransactionResult, Watch
from trunkline.store.limits import check_transaction
from trunkline.store.plugins.redis.codec import decode_entries, encode_lease, encode_transaction, key_range
from trunkline.store.plugins.redis.connection import Connection
from trunkline.store.plugins.redis.failure import reading
from trunkline.store.plugins.redis.lease import LeaseKeeper, RedisLease
from trunkline.store.plugins.redis.watch import RedisWatch, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from trunkline.store.plugins.redis.config import RedisConfig

MIN_TTL = 2.0
"""Seconds; as etcd, it grants no less."""


class Client:
    """What the handles to one store share: connections and threads.

    Args:
        config: Where and who.
        clock: Measures time-outs and refreshes.
    """

    def __init__(self, config: RedisConfig, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        self.connection = Connection(config, clock)
        self.keeper = LeaseKeeper(self.connection, clock)
        self.watcher = Watcher(self.connection, clock)
        self._lock = threading.Lock()
        self._users = 0

    def join(self) -> None:
        """Count one more handle."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """Count one handle less; the last one ends everything."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
        self.connection.close()
        self.keeper.close()
        self.watcher.close()


class RedisStore(Store):
    """A store in Redis; made by :func:`trunkline.store.plugins.redis.open_store`."""

    def __init__(self, client: Client) -> None:
        client.join()
        self._client = client
        self._lock = threading.Lock()  # guards the three below
        self._leases: WeakSet[RedisLease] = WeakSet()
        self._watches: WeakSet[RedisWatch] = WeakSet()
        self._is_closed = False

    @classmethod
    def open(cls, config: RedisConfig, clock: Clock = SYSTEM_CLOCK) -> RedisStore:
        """Open a store of its own connections."""
        return cls(Client(config, clock))

    @property
    def url(self) -> str:
        """The server and database, without credentials."""
        return self._client.config.url

    @property
    def identity(self) -> Hashable:
        return self._client.config

    def share(self) -> RedisStore:
        self._check_open()
        return RedisStore(self._client)

    def get(self, key: str, *, timeout: float | None) -> tuple[Entry | None, int]:
        found = self._read(*key_range(key, prefix=False), keys_only=False, operation=f"get {key!r}", timeout=timeout)
        return (found.entries[0] if found.entries else None), found.revision

    def list(self, prefix: str, *, keys_only: bool = False, timeout: float | None) -> Snapshot:
        words = key_range(prefix, prefix=True)
        return self._read(*words, keys_only=keys_only, operation=f"list {prefix!r}", timeout=timeout)

    def transact(self, transaction: Transaction, *, timeout: float | None) -> TransactionResult:
        self._check_open()
        check_transaction(transaction, f"Redis at {self.url}")
        branches = (transaction.then, transaction.otherwise)
        only_reads = all(isinstance(operation, Get) for branch in branches for operation in branch)
        parts = [part.key for some in (transaction.conditions, *branches) for part in some]
        succeeded, revision, reads = self._client.connection.call(
            "transact",
            *encode_transaction(transaction.conditions, *branches),
            operation=f"transaction on {parts[0]!r}" if parts else "transaction",
            timeout=timeout,
            repeat=bool(transaction.conditions) or only_reads,
        )
        with reading(self.url):
            return TransactionResult(bool(succeeded), revision, tuple(map(decode_entries, reads)))

    def grant(self, ttl: float, *, on_lost: Callable[[], None] | None = None, timeout: float | None) -> Lease:
        self._check_open()
        seconds = max(MIN_TTL, float(math.ceil(ttl)))
        number = secrets.randbits(62) + 1  # by chance alone it is never given twice, also if Redis forgets all it gave
        now = self._client.clock.monotonic()
        words = (encode_lease(number), int(seconds * 1000))
        self._client.connection.call("grant", *words, operation="grant a lease", timeout=timeout)
        lease = RedisLease(number, seconds, keeper=self._client.keeper, on_lost=on_lost, due_at=now + seconds / 3)
        self._client.keeper.add(lease)
        with self._lock:
            self._leases.add(lease)
            is_late = self._is_closed
        if is_late:
            lease.orphan()
            self._check_open()
        return lease

    def revoke(self, lease: int, *, timeout: float | None) -> bool:
        self._check_open()
        return self._client.keeper.revoke(lease, timeout)

    def time_to_live(self, lease: int, *, timeout: float | None) -> float | None:
        self._check_open()
        left = self._client.connection.call(
            "left", encode_lease(lease), operation=f"look at lease {lease:x}", timeout=timeout
        )
        return left / 1000 if left >= 0 else None

    def watch(
        self, key: str, *, prefix: bool = False, after: int | None = None, wake: threading.Event | None = None
    ) -> Watch:
        self._check_open()
        watch = RedisWatch(self._client.watcher, key, prefix=prefix, after=after, wake=wake)
        with self._lock:
            self._watches.add(watch)
            is_late = self._is_closed
        if is_late:
            watch.close()
            self._check_open()
        self._client.watcher.add(watch)
        return watch

    def close(self) -> None:
        if self._client.connection.is_foreign:
            return
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
            leases, watches = [*self._leases], [*self._watches]
        if was_closed:
            return
        for watch in watches:
            watch.close()
        for lease in leases:
            lease.orphan()
        self._client.leave()

    def __repr__(self) -> str:
        return f"<RedisStore {self.url}{' closed' if self._is_closed else ''}>"

    def _read(self, low: bytes, high: bytes, *, keys_only: bool, operation: str, timeout: float | None) -> Snapshot:
        self._check_open()
        revision, found = self._client.connection.call(
            "read", low, high, int(keys_only), operation=operation, timeout=timeout
        )
        with reading(self.url):
            return Snapshot(decode_entries(found), revision)

    def _check_open(self) -> None:
        self._client.connection.check_usable()
        if self._is_closed:
            raise ClosedError(f"the store {self.url} is closed", url=self.url)
