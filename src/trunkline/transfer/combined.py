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

_UNTOLD = "the data arrived, but the notification could not be sent"


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
        # Whoever looks while another thread posts waits: parts whose turn has not come stand as in the round before.
        self._lock = threading.Lock()
        self._owner: Any = None
        self._posted = 0  # how many parts, in this round
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
        with self._lock:
            self._posted, self._payload, self._note, self._is_announced = 0, None, None, False
            self._failure, self.total_ns = "", 0
            self._started_ns = time.perf_counter_ns()
            for part in self._parts:
                try:
                    part.post()
                except TrunklineError as error:
                    if not self._posted:
                        raise
                    self._failure = str(error)  # what was posted has to drain
                    self.stop()
                    break
                self._posted += 1
            self._payload = notification
            self.post_ns = time.perf_counter_ns() - self._started_ns
            return self._look()

    def poll(self) -> Status:
        """Drive all parts once and return how the whole stands."""
        with self._lock:
            return self._look()

    def wait(self, until: float) -> Status:
        """Drive until the whole is quiet, or ``time.monotonic()`` reaches ``until``."""
        while True:
            for part in self._parts:
                if part.wait(until) is FAILED:
                    self.poll()  # stops the others
            status = self.poll()
            if status is not IN_PROGRESS or time.monotonic() >= until:
                return status
            note = self._note
            if note is not None:
                note.wait(until)

    def stop(self) -> None:
        """Post no more of any part, nor the notification."""
        for part in self._parts[: self._posted]:
            part.stop()
        if self._note is not None:
            self._note.stop()

    @property
    def is_announcing(self) -> bool:
        """Whether the data is there, and the notification on its way or sent."""
        return self._note is not None

    @property
    def reason(self) -> str:
        """Why it FAILED: the first reason there is."""
        reasons = [self._failure, *(part.reason for part in self._parts[: self._posted])]
        return next((reason for reason in reasons if reason), "")

    @property
    def completed(self) -> int:
        """How many leading rows, through all parts, are known to have arrived."""
        total = 0
        for part, rows in zip(self._parts[: self._posted], self._rows, strict=False):
            total += part.completed
            if part.completed < rows:
                break
        return total

    def _look(self) -> Status:
        """Drive all parts once, and send the notification if it is time. With the lock held."""
        if not self._posted:
            return IDLE
        statuses = [part.poll() for part in self._parts[: self._posted]]
        if IN_PROGRESS in statuses:
            if FAILED in statuses:
                self.stop()
            return IN_PROGRESS
        if FAILED in statuses or self._failure:
            return self._end(FAILED)
        if STOPPED in statuses:
            return self._end(STOPPED)
        if self._payload is not None and not self._is_announced:
            self._is_announced = True
            try:
                self._note = self._send(self._payload)
            except TrunklineError as error:
                self._failure = f"{_UNTOLD}: {error}"
                return self._end(FAILED)
            if self._note is not None:
                self._note.owner = self._owner
        if self._note is None:
            return self._end(DONE)
        status = self._note.poll()
        if status is IN_PROGRESS:
            return status
        if status is FAILED:
            self._failure = f"{_UNTOLD}: {self._note.reason}"
        return self._end(status)

    def _end(self, status: Status) -> Status:
        if self.total_ns == 0:
            self.total_ns = time.perf_counter_ns() - self._started_ns
        return status
