"""Leases, and the thread that refreshes them."""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING

from trunkline.backoff import Backoff
from trunkline.errors import ClosedError, StoreError, StoreUnavailableError
from trunkline.store.plugins.redis.codec import encode_lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.clock import Clock
    from trunkline.store.plugins.redis.connection import Connection

_BATCH = 1000

_log = logging.getLogger(__name__)


class RedisLease:
    """A grant that is kept alive until it is closed, orphaned or lost: once Redis says that it does not exist.

    Attributes:
        id: Its number.
        ttl: Seconds.
        is_lost: Whether Redis said that it does not exist.
        due_at: When the next refresh is due, on the store's clock.
    """

    def __init__(
        self, number: int, ttl: float, *, keeper: LeaseKeeper, on_lost: Callable[[], None] | None, due_at: float
    ) -> None:
        self.id = number
        self.ttl = ttl
        self.is_lost = False
        self.due_at = due_at
        self._keeper = keeper
        self._on_lost = on_lost

    def lose(self) -> None:
        """Note that Redis doesn't know the lease, and tell its owner. Called by the keeper."""
        self.is_lost = True
        if self._on_lost is not None:
            try:
                self._on_lost()
            except Exception:  # the owner's code must not end the thread that keeps other leases alive
                _log.exception("on_lost of lease %x failed", self.id)

    def orphan(self) -> None:
        """Stop refreshing without revoking."""
        self._keeper.remove(self)

    def close(self, timeout: float | None = None) -> None:
        """Revoke the lease. Tries for ``timeout`` seconds, at most one TTL: then the keys go by themselves.

        Raises:
            StoreAuthError: The right is missing.
            ForkedError: Made by a parent process.
        """
        if not self._keeper.remove(self):
            return
        try:
            self._keeper.revoke(self.id, self.ttl if timeout is None else min(timeout, self.ttl))
        except (StoreUnavailableError, ClosedError) as error:
            _log.info("lease %x ends by its TTL: %s", self.id, error)

    def __repr__(self) -> str:
        return f"<RedisLease {self.id:x} ttl={self.ttl:g}{' lost' if self.is_lost else ''}>"


class LeaseKeeper:
    """Refreshes every lease each third of its TTL, those that are due together by one call."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._lock = threading.Lock()  # guards the three below and the times of every lease
        self._leases: dict[int, RedisLease] = {}
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._wake = threading.Event()

    def add(self, lease: RedisLease) -> None:
        """Keep a lease alive from now on."""
        with self._lock:
            if self._is_closed:
                return
            self._leases[lease.id] = lease
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="trunkline-redis-keepalive", daemon=True)
                self._thread.start()
        self._wake.set()

    def remove(self, lease: RedisLease) -> bool:
        """Let a lease go; return whether it was kept until now."""
        with self._lock:
            return self._leases.pop(lease.id, None) is not None

    def revoke(self, lease: int, timeout: float | None) -> bool:
        """Revoke any lease by number; return whether there was one."""
        return bool(
            self._connection.call("revoke", encode_lease(lease), operation=f"revoke lease {lease:x}", timeout=timeout)
        )

    def close(self) -> None:
        """Let all leases go and join the thread (unless called on it). Idempotent."""
        with self._lock:
            self._is_closed = True
            self._leases.clear()
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        backoff = Backoff()
        is_told = False
        while True:
            self._wake.clear()
            now = self._clock.monotonic()
            with self._lock:
                if self._is_closed:
                    return
                due = [each for each in self._leases.values() if each.due_at <= now][:_BATCH]
                next_due = min((each.due_at for each in self._leases.values()), default=math.inf)
            if not due:
                self._clock.wait(self._wake, None if next_due == math.inf else next_due - now)
                continue
            try:
                self._refresh(due, now)
                backoff.reset()
                is_told = False
            except ClosedError:
                return
            except StoreError as error:
                _log.log(logging.INFO if is_told else logging.WARNING, "no lease is refreshed: %s", error)
                is_told = True  # once in an outage
                self._clock.wait(self._wake, min(backoff.next_delay(), min(each.ttl for each in due) / 3))

    def _refresh(self, due: list[RedisLease], now: float) -> None:
        patience = min(each.ttl for each in due) / 3
        numbers = [encode_lease(each.id) for each in due]
        known = self._connection.call("refresh", len(due), *numbers, operation="keep leases alive", timeout=patience)
        lost = []
        with self._lock:
            for lease, is_known in zip(due, known, strict=True):
                if is_known:
                    lease.due_at = now + lease.ttl / 3
                elif self._leases.pop(lease.id, None) is not None:
                    lost.append(lease)
        for lease in lost:
            lease.lose()
