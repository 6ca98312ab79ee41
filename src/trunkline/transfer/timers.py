"""When transfers are to be stopped, or forced: a heap of times, swept of rounds that have ended."""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.transfer.handle import TransferHandle
    from trunkline.transfer.state import Event

SLACK = 64
"""How many timers of ended rounds are kept before they are swept."""


class Timers:
    """Times of ``time.monotonic()``, each of one round of a transfer. Any thread may call any method."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TransferHandle, int, Event | None]] = []
        self._lock = threading.Lock()
        self._order = itertools.count()  # so that handles are never compared

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, at: float, handle: TransferHandle, round_number: int, event: Event | None, *, active: int) -> bool:
        """Add one; return whether it is the next.

        Args:
            at: When.
            handle: The transfer.
            round_number: Which round of it.
            event: What it is to be given; None if it is to be forced.
            active: How many transfers run: those of many more rounds than that are swept.
        """
        with self._lock:
            if len(self._heap) > 2 * active + SLACK:
                self._heap = [timer for timer in self._heap if timer[2].is_running(timer[3])]
                heapq.heapify(self._heap)
            is_next = not self._heap or at < self._heap[0][0]
            heapq.heappush(self._heap, (at, next(self._order), handle, round_number, event))
            return is_next

    def next(self, latest: float) -> float:
        """Return when the next one is due, at the latest then."""
        with self._lock:
            return min(self._heap[0][0], latest) if self._heap else latest

    def take_due(self, now: float) -> list[tuple[TransferHandle, Event | None]]:
        """Take those that are due; return transfers whose round still runs, and what each is to be given."""
        due: list[tuple[TransferHandle, Event | None]] = []
        with self._lock:
            while self._heap and self._heap[0][0] <= now:
                _, _, handle, round_number, event = heapq.heappop(self._heap)
                if handle.is_running(round_number):
                    due.append((handle, event))
        return due
