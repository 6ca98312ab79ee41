"""Mending in the background: one thread for all that is broken, which lives only while something is."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from trunkline.clock import Clock

_log = logging.getLogger(__name__)


class Mendable(Protocol):
    """Something that can be out of order."""

    def mend(self) -> float | None:
        """Try to put it in order; return the seconds after which to try again, or None when there is nothing to do."""
        ...


class Upkeep:
    """Mends what asks for it, one after the other. Any thread may call any method.

    Args:
        clock: Measures the pauses between attempts.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._due: dict[Mendable, float] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def request(self, broken: Mendable, delay: float = 0.0) -> None:
        """Have it mended after ``delay`` seconds, or earlier if that was asked for already. Returns at once."""
        due = self._clock.monotonic() + delay
        with self._lock:
            if self._is_closed:
                return
            self._due[broken] = min(due, self._due.get(broken, due))
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="trunkline-upkeep", daemon=True)
                thread.start()  # fails when there are no more threads; the next request tries again
                self._thread = thread
        self._wake.set()

    def forget(self, broken: Mendable) -> None:
        """Mend it no more; an attempt under way goes on."""
        with self._lock:
            self._due.pop(broken, None)
        self._wake.set()

    def close(self) -> None:
        """End the thread once its attempt is over. Idempotent."""
        with self._lock:
            self._is_closed = True
            self._due.clear()
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            with self._lock:
                if not self._due:
                    self._thread = None
                    return
                broken = min(self._due, key=self._due.__getitem__)
                left = self._due[broken] - self._clock.monotonic()
                if left <= 0:
                    del self._due[broken]
            if left > 0:
                self._clock.wait(self._wake, left)
                continue
            try:
                again = broken.mend()
            except Exception:  # one that can't be mended must not keep the others from it
                _log.exception("mending %r failed", broken)
                continue
            if again is not None:
                self.request(broken, again)
