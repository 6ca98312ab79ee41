"""Several requests as one, and a notification once all of their data is there."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from trunkline.backend.contract import Status
from trunkline.errors import TrunklineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trunkline.backend.contract import Request

FAILED, STOPPED, IDLE, DONE, IN_PROGRESS = (
    Status.FAILED,
    Status.STOPPED,
    Status.IDLE,
    Status.DONE,
    Status.IN_PROGRESS,
)


class CombinedRequest:
    """Posts all of its parts; it is DONE when they are, and when the notification was sent that then follows.

    If one fails, the others are stopped. Any thread may call any method.

    Args:
        parts: Requests, each with how many rows it has.
        send: Sends an encoded notification and returns its request, or None if it is delivered.
    """

    def __init__(self, parts: Sequence[tuple[Request, int]], send: Callable[[bytes], Request | None]) -> None:
        self._parts = [request for request, _ in parts]
        self._rows = [rows for _, rows in parts]
        self._send = send
        self._lock = threading.Lock()  # one thread sees the end of the data, and sends
        self._owner: Any = None
        self._payload: bytes | None = None
        self._note: Request | None = None
        self._is_announced = False
        self._failure = ""
        self._started_ns = 0
        self.post_ns = 0
        self.total_ns = 0

    @property
    def owner(self) -> Any:
        """The caller's, on all parts alike: whoever sees one of them end looks at the whole."""
        return self._owner

    @owner.setter
    def owner(self, owner: Any) -> None:
        self._owner = owner
        for part in self._parts:
            part.owner = owner

    def post(self, notification: bytes | None = None) -> Status:
        """Start all parts."""
        self._payload, self._note, self._is_announced = notification, None, False
        self._failure, self.total_ns = "", 0
        self._started_ns = time.perf_counter_ns()
        for position, part in enumerate(self._parts):
            try:
                part.post()
            except TrunklineError as error:
                if position == 0:
                    raise
                self._failure = str(error)  # what was posted has to drain
                self.stop()
                break
        self.post_ns = time.perf_counter_ns() - self._started_ns
        return self.poll()

    def poll(self) -> Status:
        """Drive all parts once and return how the whole stands."""
        return self._status([part.poll() for part in self._parts])

    def wait(self, until: float) -> Status:
        """Drive until the whole is quiet, or ``time.monotonic()`` reaches ``until``."""
        status = self._status([part.wait(until) for part in self._parts])
        note = self._note
        if status is IN_PROGRESS and note is not None:
            note.wait(until)
            status = self.poll()
        return status

    def stop(self) -> None:
        """Post no more of any part."""
        for part in self._parts:
            part.stop()

    @property
    def reason(self) -> str:
        """Why it FAILED: the first reason there is."""
        reasons = [self._failure, *(part.reason for part in self._parts), self._note.reason if self._note else ""]
        return next((reason for reason in reasons if reason), "")

    @property
    def completed(self) -> int:
        """How many leading rows, through all parts, are known to have arrived."""
        total = 0
        for part, rows in zip(self._parts, self._rows, strict=True):
            total += part.completed
            if part.completed < rows:
                break
        return total

    def _status(self, statuses: list[Status]) -> Status:
        if IN_PROGRESS in statuses:
            if FAILED in statuses:
                self.stop()
            return IN_PROGRESS
        if FAILED in statuses or self._failure:
            return self._end(FAILED)
        if STOPPED in statuses:
            return self._end(STOPPED)
        if IDLE in statuses:
            return IDLE
        if self._payload is None:
            return self._end(DONE)
        with self._lock:
            if not self._is_announced:
                self._is_announced = True
                try:
                    self._note = self._send(self._payload)
                except TrunklineError as error:
                    self._failure = f"the data arrived, but the notification could not be sent: {error}"
                    return self._end(FAILED)
                if self._note is not None:
                    self._note.owner = self._owner
        if self._note is None:
            return self._end(DONE)
        status = self._note.poll()
        return status if status is IN_PROGRESS else self._end(DONE if status is DONE else FAILED)

    def _end(self, status: Status) -> Status:
        if self.total_ns == 0 and self._started_ns:
            self.total_ns = time.perf_counter_ns() - self._started_ns
        return status
