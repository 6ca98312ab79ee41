"""A connection to a memory store, its watches and leases."""

from __future__ import annotations

import math
import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from trunkline.clock import SYSTEM_CLOCK, Clock, Deadline
from trunkline.errors import ClosedError, ConfigurationError, ForkedError
from trunkline.store.contract import (
    Entry,
    Snapshot,
    Store,
    Transaction,
    TransactionResult,
    WatchEvent,
)
from trunkline.store.plugins.memory.server import Server, connect, disconnect

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from types import TracebackType

MIN_TTL = 2.0
"""Seconds; etcd grants no less."""


def open_store(url: str, *, clock: Clock = SYSTEM_CLOCK) -> MemoryStore:
    """Open ``memory://NAME``: everybody in this process who opens the same name sees the same data, which is
    dropped when the last of them closes.

    Args:
        url: ``memory://`` and a name.
        clock: Measures leases and waits; for tests.

    Raises:
        ConfigurationError: There is no name, or the store is open with another clock.
    """
    name = url.partition("://")[2]
    if not name:
        raise ConfigurationError("memory:// needs a name, such as memory://test")
    return MemoryStore(connect(name, clock))


class MemoryStore(Store):
    """A connection to a :class:`Server`. No method waits, so time-outs are met without being looked at."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._pid = os.getpid()
        self._is_closed = False
        self._watches: set[MemoryWatch] = set()
        self._leases: set[MemoryLease] = set()

    @property
    def url(self) -> str:
        return f"memory://{self._server.name}"

    @property
    def identity(self) -> Hashable:
        return self._server

    def share(self) -> MemoryStore:
        with self._opened() as server:
            return MemoryStore(connect(server.name, server.clock))

    def get(self, key: str, *, timeout: float | None) -> tuple[Entry | None, int]:
        del timeout
        with self._opened() as server:
            entries = server.database.select(key)
            return (entries[0] if entries else None), server.database.revision

    def list(self, prefix: str, *, keys_only: bool = False, timeout: float | None) -> Snapshot:
        del timeout
        with self._opened() as server:
            entries = server.database.select(prefix, prefix=True)
            revision = server.database.revision
        if keys_only:
            entries = tuple(
                Entry(entry.key, b"", entry.create_revision, entry.mod_revision, entry.lease) for entry in entries
            )
        return Snapshot(entries, revision)

    def transact(self, transaction: Transaction, *, timeout: float | None) -> TransactionResult:
        del timeout
        with self._opened() as server:
            before = server.database.revision
            result = server.database.transact(transaction)
            if result.revision > before:
                server.changed()
            return result

    def grant(self, ttl: float, *, on_lost: Callable[[], None] | None = None, timeout: float | None) -> MemoryLease:
        del timeout
        with self._opened() as server:
            lease = MemoryLease(self, server, max(MIN_TTL, float(math.ceil(ttl))), on_lost)
            self._leases.add(lease)
            return lease

    def revoke(self, lease: int, *, timeout: float | None) -> bool:
        del timeout
        with self._opened() as server:
            existed = server.database.revoke(lease)
            server.changed()
            return existed

    def time_to_live(self, lease: int, *, timeout: float | None) -> float | None:
        del timeout
        with self._opened() as server:
            return server.database.time_to_live(lease, server.clock.monotonic())

    def watch(
        self, key: str, *, prefix: bool = False, after: int | None = None, wake: threading.Event | None = None
    ) -> MemoryWatch:
        with self._opened() as server:
            watch = MemoryWatch(self, server, key, prefix=prefix, after=after, wake=wake)
            self._watches.add(watch)
            return watch

    def forget(self, part: MemoryWatch | MemoryLease) -> None:
        """Called by a watch or lease of this connection when it ends, with the server's lock held."""
        if isinstance(part, MemoryWatch):
            self._watches.discard(part)
        else:
            self._leases.discard(part)

    def close(self) -> None:
        if os.getpid() != self._pid:
            return
        with self._server.lock:
            if self._is_closed:
                return
            self._is_closed = True
            for lease in tuple(self._leases):
                lease.orphan()
            for watch in tuple(self._watches):
                watch.close()
        disconnect(self._server)

    @contextmanager
    def _opened(self) -> Iterator[Server]:
        """Hold the server's lock, if this connection can be used."""
        if os.getpid() != self._pid:
            raise ForkedError(f"{self.url} was opened before a fork; open it again in the child", url=self.url)
        with self._server.lock:
            if self._is_closed:
                raise ClosedError(f"{self.url} was closed", url=self.url)
            yield self._server


class MemoryLease:
    """A lease that never runs out while its connection is open, unless somebody revokes it."""

    def __init__(self, store: MemoryStore, server: Server, ttl: float, on_lost: Callable[[], None] | None) -> None:
        self._store = store
        self._server = server
        self._ttl = ttl
        self._is_ended = False
        self._was_lost = False
        self._id = server.database.grant(ttl)
        server.add_owner(self._id, on_lost)

    @property
    def id(self) -> int:
        return self._id

    @property
    def ttl(self) -> float:
        return self._ttl

    @property
    def is_lost(self) -> bool:
        with self._server.lock:
            if not self._is_ended:
                self._was_lost = self._server.database.time_to_live(self._id, 0) is None
            return self._was_lost

    def close(self, timeout: float | None = None) -> None:
        del timeout
        with self._server.lock:
            if not self._is_ended:
                self._end()
                self._was_lost = not self._server.database.revoke(self._id)
                self._server.changed()

    def orphan(self) -> None:
        with self._server.lock:
            if not self._is_ended:
                self._end()
                self._server.database.expire_after(self._id, self._server.clock.monotonic())
                self._server.changed()

    def _end(self) -> None:
        self._is_ended = True
        self._server.remove_owner(self._id)
        self._store.forget(self)


class MemoryWatch:
    """A position in the server's history; nothing is queued, so a slow reader costs nothing."""

    def __init__(
        self,
        store: MemoryStore,
        server: Server,
        key: str,
        *,
        prefix: bool,
        after: int | None,
        wake: threading.Event | None,
    ) -> None:
        self._store = store
        self._server = server
        self._key = key
        self._prefix = prefix
        self._position = after
        self._is_closed = False
        self._ready = threading.Event() if wake is None else wake
        self._is_shared = wake is not None
        if wake is not None:
            wake.set()  # there may be history to take
        server.add_watcher(self._ready)

    def next(self, timeout: float | None) -> WatchEvent | None:
        clock = self._server.clock
        deadline = Deadline(timeout, clock)
        while True:
            event = self._take()
            if event is not None:
                return event
            if deadline.has_passed or not clock.wait(self._ready, deadline.remaining()):
                return None

    def close(self) -> None:
        with self._server.lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._store.forget(self)
            self._server.remove_watcher(self._ready)
            self._ready.set()

    def __iter__(self) -> Iterator[WatchEvent]:
        with suppress(ClosedError):
            while True:
                event = self.next(None)
                if event is not None:
                    yield event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> WatchEvent | None:
        with self._server.lock:
            if self._is_closed:
                raise ClosedError(f"a watch of {self._key!r} on {self._store.url} was closed", key=self._key)
            database = self._server.database
            event: WatchEvent | None
            if self._position is None:
                event = Snapshot(database.select(self._key, prefix=self._prefix), database.revision)
            else:
                event = database.change_after(self._position, self._key, prefix=self._prefix)
            if event is None and not self._is_shared:
                self._ready.clear()
            elif event is not None:
                self._position = event.revision
            return event
