"""The store in etcd. Its rules are :mod:`trunkline.store.contract`'s; this only translates."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

from trunkline.errors import ClosedError
from trunkline.etcd import request, value
from trunkline.etcd.config import EtcdConfig
from trunkline.etcd.sharing import close_client, open_client
from trunkline.store.contract import (
    Changed,
    Condition,
    Delete,
    Entry,
    Get,
    Interrupted,
    KeyHasLease,
    KeyHasRevision,
    KeyIsAbsent,
    Lease,
    Operation,
    Put,
    Snapshot,
    Store,
    Transaction,
    TransactionResult,
    Watch,
    WatchEvent,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from pathlib import Path
    from types import TracebackType

    from trunkline.etcd.client import EtcdClient
    from trunkline.etcd.lease import Lease as EtcdLease
    from trunkline.etcd.watch import Watch as ClientWatch


def open_store(
    url: str,
    *,
    username: str | None = None,
    password: str | None = None,
    ca: str | Path | None = None,
    cert: str | Path | None = None,
    key: str | Path | None = None,
    credentials: str | Path | None = None,
) -> EtcdStore:
    """Open the store at ``etcd://host:port[,host:port …]``; sends nothing yet.

    Args and errors are those of :meth:`trunkline.etcd.config.EtcdConfig.parse`. Stores of one process with equal
    settings share one client: one watch stream, one keep-alive thread.
    """
    config = EtcdConfig.parse(
        url,
        username=username,
        password=password,
        ca=ca,
        cert=cert,
        key=key,
        credentials=credentials,
        environment=os.environ,
    )
    return EtcdStore(open_client(config))


class EtcdStore(Store):
    """A store in etcd; made by :func:`open_store`."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self._lock = threading.Lock()  # guards the three below
        self._leases: WeakSet[EtcdLease] = WeakSet()
        self._watches: WeakSet[ClientWatch] = WeakSet()  # the client's stream refers to those that are open
        self._is_closed = False

    @property
    def url(self) -> str:
        """The endpoints, without credentials."""
        return self._client.config.url

    @property
    def identity(self) -> Hashable:
        return self._client.config

    def share(self) -> EtcdStore:
        self._check_open()
        return EtcdStore(open_client(self._client.config))

    def get(self, key: str, *, timeout: float | None) -> tuple[Entry | None, int]:
        self._check_open()
        listing = self._client.range(_encode(key), timeout=timeout)
        return (_entry(listing.entries[0]) if listing.entries else None), listing.revision

    def list(self, prefix: str, *, keys_only: bool = False, timeout: float | None) -> Snapshot:
        self._check_open()
        return _snapshot(self._client.range(*_range(prefix, prefix=True), keys_only=keys_only, timeout=timeout))

    def transact(self, transaction: Transaction, *, timeout: float | None) -> TransactionResult:
        self._check_open()
        outcome = self._client.transact(
            [_compare(condition) for condition in transaction.conditions],
            [_operation(operation) for operation in transaction.then],
            [_operation(operation) for operation in transaction.otherwise],
            timeout=timeout,
        )
        reads = tuple(tuple(_entry(found) for found in read) for read in outcome.reads)
        return TransactionResult(outcome.succeeded, outcome.revision, reads)

    def grant(self, ttl: float, *, on_lost: Callable[[], None] | None = None, timeout: float | None) -> Lease:
        self._check_open()
        lease = self._client.grant(ttl, on_lost=on_lost, timeout=timeout)
        with self._lock:
            self._leases.add(lease)
            is_late = self._is_closed
        if is_late:
            lease.orphan()
            self._check_open()
        return lease

    def revoke(self, lease: int, *, timeout: float | None) -> bool:
        self._check_open()
        return self._client.revoke(lease, timeout=timeout)

    def time_to_live(self, lease: int, *, timeout: float | None) -> float | None:
        self._check_open()
        return self._client.time_to_live(lease, timeout=timeout)

    def watch(
        self, key: str, *, prefix: bool = False, after: int | None = None, wake: threading.Event | None = None
    ) -> Watch:
        self._check_open()
        watch = self._client.watch(*_range(key, prefix=prefix), after=after, wake=wake)
        with self._lock:
            self._watches.add(watch)
            is_late = self._is_closed
        if is_late:
            watch.close()
            self._check_open()
        return EtcdWatch(watch)

    def close(self) -> None:
        if self._client.is_foreign:
            return
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
            leases, watches = list(self._leases), list(self._watches)
        if was_closed:
            return
        for watch in watches:
            watch.close()
        for lease in leases:
            lease.orphan()
        close_client(self._client)

    def __repr__(self) -> str:
        return f"<EtcdStore {self.url}{' closed' if self._is_closed else ''}>"

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError(f"the store {self.url} is closed", url=self.url)


class EtcdWatch(Watch):
    """A watch of the client, in the store's words."""

    def __init__(self, watch: ClientWatch) -> None:
        self._watch = watch

    def next(self, timeout: float | None) -> WatchEvent | None:
        event = self._watch.next(timeout)
        return None if event is None else _event(event)

    def close(self) -> None:
        self._watch.close()

    def __iter__(self) -> Iterator[WatchEvent]:
        return map(_event, self._watch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _encode(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _decode(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _range(key: str, *, prefix: bool) -> tuple[bytes, bytes]:
    start = _encode(key)
    if not prefix:
        return start, b""
    return start or b"\0", request.prefix_end(start)  # etcd refuses an empty key; this one sorts first


def _entry(found: value.KeyValue) -> Entry:
    return Entry(_decode(found.key), found.value, found.create_revision, found.mod_revision, found.lease)


def _snapshot(listing: value.Listing) -> Snapshot:
    return Snapshot(tuple(_entry(found) for found in listing.entries), listing.revision)


def _event(event: value.WatchEvent) -> WatchEvent:
    match event:
        case value.Change():
            put = tuple(_entry(found) for found in event.put)
            return Changed(put, tuple(_decode(key) for key in event.deleted), event.revision)
        case value.Listing():
            return _snapshot(event)
        case value.Interruption():
            return Interrupted(event.reason)


def _compare(condition: Condition) -> Any:
    key = _encode(condition.key)
    match condition:
        case KeyIsAbsent():
            return request.absent(key)
        case KeyHasLease():
            return request.lease_is(key, condition.lease)
        case KeyHasRevision():
            return request.revision_is(key, condition.mod_revision)


def _operation(operation: Operation) -> Any:
    match operation:
        case Put():
            return request.put(_encode(operation.key), operation.value, lease=operation.lease)
        case Delete():
            return request.delete(*_range(operation.key, prefix=operation.prefix))
        case Get():
            return request.read(*_range(operation.key, prefix=operation.prefix), revision=operation.revision)
