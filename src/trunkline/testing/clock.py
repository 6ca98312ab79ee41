"""A clock that stands still until a test moves it."""

from __future__ import annotations

import threading
import time

_GLANCE = 0.002  # real seconds between two looks at an event: another thread may set it at any time


class FakeClock:
    """Implements :class:`trunkline.clock.Clock`; time passes only by :meth:`advance`. For any thread."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._moved = threading.Condition()
        self._waiting = 0

    def monotonic(self) -> float:
        return self._now

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Wait until ``event`` is set, or :meth:`advance` has moved ``timeout`` seconds from here."""
        end = None if timeout is None else self._now + timeout
        with self._moved:
            self._waiting += 1
            self._moved.notify_all()
            try:
                while not event.is_set() and (end is None or self._now < end):
                    self._moved.wait(_GLANCE)
            finally:
                self._waiting -= 1
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake whoever waited for it."""
        with self._moved:
            self._now += seconds
            self._moved.notify_all()

    def until_waiting(self, count: int = 1, *, at_most: float = 30.0) -> None:
        """Return once ``count`` threads wait on this clock.

        Raises:
            AssertionError: They don't, after ``at_most`` real seconds.
        """
        end = time.monotonic() + at_most
        with self._moved:
            while self._waiting < count:
                if not self._moved.wait(end - time.monotonic()):
                    raise AssertionError(f"{self._waiting} threads wait on the clock, not {count}")
