"""Leases, and the one thread that keeps all of a client's leases alive."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from trunkline.clock import Clock, Deadline
from trunkline.errors import ClosedError, StoreError, StoreUnavailableError
from trunkline.etcd.backoff import Backoff
from trunkline.etcd.connection import ATTEMPT_TIMEOUT
from trunkline.etcd.messages import LEASE_KEEP_ALIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.etcd.connection import Connection

_log = logging.getLogger(__name__)


class Lease:
    """A grant that is kept alive until it is closed, orphaned or lost. Any thread may use it.

    An outage alone does not lose it: a restarted etcd restores its leases with their full TTL. It is lost once
    etcd says that it does not exist.

    Attributes:
        id: etcd's number of it.
        ttl: Seconds, as granted.
        is_lost: Whether etcd said that it does not exist.
        refreshed_at: When the last request that etcd confirmed was sent, on the client's clock.
        due_at: When the next refresh is due, on the client's clock.
    """

    def __init__(
        self,
        number: int,
        ttl: float,
        granted_at: float,
        *,
        keeper: LeaseKeeper,
        revoke: Callable[[int, float], object],
        on_lost: Callable[[], None] | None,
    ) -> None:
        self.id = number
        self.ttl = ttl
        self.is_lost = False
        self.refreshed_at = granted_at
        self.due_at = granted_at + ttl / 3
        self._keeper = keeper
        self._revoke = revoke
        self._on_lost = on_lost
        self._backoff = Backoff()

    def confirm(self, sent_at: float) -> None:
        """Note that etcd confirmed the request of that time. Called by the keeper."""
        self._backoff.reset()
        self.refreshed_at = sent_at
        self.due_at = sent_at + self.ttl / 3

    def postpone(self, now: float) -> None:
        """Note that etcd could not be asked. Called by the keeper."""
        self.due_at = now + self._backoff.next_delay()

    def lose(self) -> None:
        """Note that etcd doesn't know the lease, and tell its owner. Called by the keeper."""
        self.is_lost = True
        if self._on_lost is not None:
            try:
                self._on_lost()
            except Exception:  # the owner's code must not end the thread that keeps other leases alive
                _log.exception("on_lost of lease %x failed", self.id)

    def orphan(self) -> None:
        """Stop refreshing without revoking: the keys vanish when the TTL has run out. Idempotent."""
        self._keeper.remove(self)

    def close(self, timeout: float | None = None) -> None:
        """Revoke the lease: its keys vanish now. Idempotent.

        Tries for ``timeout`` seconds, at most one TTL: if etcd is away that long, the keys go by themselves.

        Raises:
            StoreAuthError: The right is missing.
            ForkedError: Made by a parent process.
        """
        if not self._keeper.remove(self):
            return
        try:
            self._revoke(self.id, self.ttl if timeout is None else min(timeout, self.ttl))
        except StoreUnavailableError as error:
            _log.info("lease %x ends by its TTL: %s", self.id, error)

    def __repr__(self) -> str:
        return f"<Lease {self.id:x} ttl={self.ttl:g}{' lost' if self.is_lost else ''}>"


class LeaseKeeper:
    """Refreshes every lease each third of its TTL, all from one thread, which the first lease starts.

    It has a connection of its own, so that no other traffic delays a refresh. A refresh is one message on a stream
    that carries nothing else; on the wire that is a unary call, and is made as one.
    """

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._lock = threading.Lock()  # guards _leases, _thread, _is_closed
        self._leases: set[Lease] = set()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._wake = threading.Event()

    def add(self, lease: Lease) -> None:
        """Keep a lease alive from now on."""
        with self._lock:
            if self._is_closed:
                return
            self._leases.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="trunkline-etcd-keepalive", daemon=True)
                self._thread.start()
        self._wake.set()

    def remove(self, lease: Lease) -> bool:
        """Let a lease go; return whether it was kept until now."""
        self._connection.check_process()
        with self._lock:
            was_kept = lease in self._leases
            self._leases.discard(lease)
            return was_kept

    def close(self) -> None:
        """Let all leases go and join the thread (unless called on it). Idempotent."""
        with self._lock:
            self._is_closed = True
            self._leases.clear()
            thread = self._thread
        self._wake.set()
        self._connection.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while not self._is_closed:
            self._wake.clear()
            with self._lock:
                lease = min(self._leases, key=lambda lease: lease.due_at, default=None)
            if lease is None:
                self._pause(None)
            elif (delay := lease.due_at - self._clock.monotonic()) > 0:
                self._pause(delay)
            else:
                self._refresh(lease)

    def _pause(self, delay: float | None) -> None:
        if not self._is_closed:  # close sets the event after this flag, so clearing it above lost nothing
            self._clock.wait(self._wake, delay)

    def _refresh(self, lease: Lease) -> None:
        sent_at = self._clock.monotonic()
        try:
            response = self._connection.call(
                LEASE_KEEP_ALIVE,
                LEASE_KEEP_ALIVE.request(ID=lease.id),
                deadline=Deadline(max(ATTEMPT_TIMEOUT, lease.ttl / 3), self._clock),
                operation=f"keep lease {lease.id:x} alive",
            )
        except ClosedError:
            return
        except StoreError as error:  # a right that is missing may be given while the lease lives: ask again
            _log.warning("%s", error)
            lease.postpone(self._clock.monotonic())
            return
        if response.TTL > 0:
            lease.confirm(sent_at)
        elif self.remove(lease):
            lease.lose()
