"""Notifications that arrived, until the application takes them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trunkline.errors import MetadataDecodeError, NotificationOverflowError
from trunkline.metadata.notification import decode_notification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trunkline.clock import Deadline

LIMIT = 65_536
"""How many notifications wait for the application before new ones are dropped (and the drop reported)."""

LIMIT_BYTES = 64 << 20
"""How many bytes of payload wait at most."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Notification:
    """A message from a peer.

    Attributes:
        sender: The name the sender gave itself. As in NIXL it is not proven.
        payload: Its bytes.
        ok: False if it belongs to a transfer that did not succeed: the promised message, but not the data.
    """

    sender: str
    payload: bytes
    ok: bool = True


class Inbox:
    """A bounded queue of notifications. Any thread may call any method."""

    def __init__(self, *, limit: int = LIMIT, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._queue: deque[Notification] = deque()
        self._bytes = 0
        self._dropped = 0
        self._closed = False
        self._arrived = threading.Condition()
        self._listeners: list[Callable[[], None]] = []

    def deliver(self, payloads: Iterable[tuple[bytes, bool]], dropped: int = 0) -> None:
        """Take raw payloads from a backend (with their failure marks), and how many it had to drop."""
        with self._arrived:
            self._dropped += dropped
            for raw, failure in payloads:
                try:
                    sender, payload = decode_notification(raw)
                except MetadataDecodeError as error:
                    # Nobody is waiting for bytes that are no notification; whoever sent them is not a NIXL agent.
                    log.warning("ignored %d bytes that are no notification: %s", len(raw), error)
                    continue
                if len(self._queue) >= self._limit or self._bytes + len(payload) > self._limit_bytes:
                    self._dropped += 1
                    continue
                self._bytes += len(payload)
                self._queue.append(Notification(sender, payload, not failure))
            self._arrived.notify_all()
            listeners = self._listeners[:]
        for listener in listeners:
            listener()

    def take(self) -> list[Notification]:
        """Return what arrived, oldest first, maybe nothing.

        Raises:
            NotificationOverflowError: Some were dropped since the last call; those that were kept follow with
                the next call.
        """
        if not self._queue and not self._dropped:  # as nearly always, and a lock takes longer than the look
            return []
        with self._arrived:
            self._check_dropped()
            taken = list(self._queue)
            self._queue.clear()
            self._bytes = 0
            return taken

    def wait(self, deadline: Deadline, matches: Callable[[Notification], bool] | None = None) -> Notification | None:
        """Wait for the oldest notification that matches; None when the deadline passed or the inbox was closed.

        Raises:
            NotificationOverflowError: As in :meth:`take`.
        """
        with self._arrived:
            while True:
                self._check_dropped()
                found = self._pop(matches)
                if found is not None or self._closed or deadline.has_passed:
                    return found
                self._arrived.wait(deadline.remaining())

    def pop(self, matches: Callable[[Notification], bool] | None = None) -> Notification | None:
        """Return the oldest notification that matches, or None, at once. Raises as :meth:`take`."""
        with self._arrived:
            self._check_dropped()
            return self._pop(matches)

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called (from any thread, briefly) whenever something arrived or the inbox closed."""
        with self._arrived:
            self._listeners.append(listener)

    def remove_listener(self, listener: Callable[[], None]) -> None:
        with self._arrived:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def close(self) -> None:
        """Wake everybody who waits. What arrived can still be taken."""
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()
            listeners = self._listeners[:]
        for listener in listeners:
            listener()

    def __len__(self) -> int:
        return len(self._queue)

    def _pop(self, matches: Callable[[Notification], bool] | None) -> Notification | None:
        for index, notification in enumerate(self._queue):
            if matches is None or matches(notification):
                del self._queue[index]
                self._bytes -= len(notification.payload)
                return notification
        return None

    def _check_dropped(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            raise NotificationOverflowError(
                f"{dropped} notifications were dropped: more than {self._limit} (or {self._limit_bytes} bytes) waited; "
                "take them more often. Those that were kept follow with the next call",
                dropped=dropped,
            )
