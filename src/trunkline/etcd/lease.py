"""Leases: what their owners hold."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from trunkline.backoff import Backoff
from trunkline.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.etcd.lease_keeper import LeaseKeeper

_EARLY = 1 / 60  # of a TTL: what is due that soon may as well go out together with what is due now

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
        ready_at: When it may go out together with others that are due.
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
        self._keeper = keeper
        self._revoke = revoke
        self._on_lost = on_lost
        self._backoff = Backoff()
        self.confirm(granted_at)

    def confirm(self, sent_at: float) -> None:
        """Note that etcd confirmed the request of that time. Called by the keeper."""
        self._backoff.reset()
        self.refreshed_at = sent_at
        self.due_at = sent_at + self.ttl / 3
        self.ready_at = self.due_at - _EARLY * self.ttl

    def postpone(self, now: float) -> None:
        """Note that etcd refused to refresh it, which another right may change. Called by the keeper."""
        self.due_at = self.ready_at = now + self._backoff.next_delay()

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
