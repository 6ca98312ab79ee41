"""Several watches waited on as one."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Self

from trunkline.clock import Clock, Deadline
from trunkline.errors import TrunklineError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from trunkline.store.contract import Watch, WatchEvent


class Watches:
    """Takes events of several watches as they come, by one thread each (``trunkline-watches``). One reader.

    Args:
        watches: Closed by :meth:`close`.
        clock: Measures waiting.
    """

    def __init__(self, watches: Iterable[Watch], clock: Clock) -> None:
        self._watches = tuple(watches)
        self._clock = clock
        self._events: deque[WatchEvent | TrunklineError] = deque()
        self._ready = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(watch,), name="trunkline-watches", daemon=True)
            for watch in self._watches
        ]
        for thread in self._threads:
            thread.start()

    def next(self, timeout: float | None) -> WatchEvent | None:
        """Wait for the next event of any watch; None when ``timeout`` seconds passed.

        Raises:
            StoreError: A watch ended with it.
        """
        deadline = Deadline(timeout, self._clock)
        while not self._events:
            if not self._clock.wait(self._ready, deadline.remaining()):
                return None
            self._ready.clear()
        event = self._events.popleft()
        if isinstance(event, TrunklineError):
            raise event
        return event

    def close(self) -> None:
        """Close the watches and end the threads."""
        for watch in self._watches:
            watch.close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, watch: Watch) -> None:
        try:
            while (event := watch.next(None)) is not None:
                self._tell(event)
        except TrunklineError as error:
            self._tell(error)

    def _tell(self, event: WatchEvent | TrunklineError) -> None:
        self._events.append(event)
        self._ready.set()
