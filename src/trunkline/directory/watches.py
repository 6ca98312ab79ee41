"""Several keys watched as one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from trunkline.clock import Clock, Deadline

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from trunkline.store.contract import Store, WatchEvent


class KeyWatches:
    """Takes the events of several keys as they come; one reader.

    Args:
        store: Where the keys are.
        keys: What is watched, each by a watch of its own: a transaction that writes several of them shows as one event
            for each, with one revision.
        after: The revision after which changes are wanted.
        clock: Measures waiting.
    """

    def __init__(self, store: Store, keys: Iterable[str], *, after: int, clock: Clock) -> None:
        self._clock = clock
        self._wake = threading.Event()
        self._watches = {key: store.watch(key, after=after, wake=self._wake) for key in keys}

    def next(self, timeout: float | None) -> tuple[str, WatchEvent] | None:
        """Wait for the next event of any key and return it with the key; None when ``timeout`` seconds passed.

        Raises:
            StoreError: A watch ended with it.
        """
        deadline = Deadline(timeout, self._clock)
        while True:
            self._wake.clear()
            for key, watch in self._watches.items():
                event = watch.next(0)
                if event is not None:
                    return key, event
            if deadline.has_passed or not self._clock.wait(self._wake, deadline.remaining()):
                return None

    def close(self) -> None:
        """Close the watches."""
        for watch in self._watches.values():
            watch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
