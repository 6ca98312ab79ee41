"""Fetching agents in the background, as NIXL's calls do: they return at once and are asked later."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

from trunkline.clock import Deadline
from trunkline.errors import TrunklineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.exchange.address import Address

log = logging.getLogger(__name__)

JOIN_TIMEOUT = 1.0
"""Seconds for which the end of an agent waits for its fetches to end."""


class Fetching:
    """The fetches of one agent that are under way, and how the last of each name failed.

    Each name has a thread of its own while something of it is wanted, which fetches its labels, and what its listener
    says, in the order in which they were asked for: so no name waits for another, and a part comes after what says how
    its agent is reached. Any thread may call any method.

    Args:
        fetch: Fetches a label of a name from the store, or all from an address, and waits for it.
    """

    def __init__(self, fetch: Callable[[str, str | Address], object]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._wanted: dict[str, deque[str | Address]] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._failures: dict[str, TrunklineError] = {}
        self._is_closed = False

    def start(self, name: str, source: str | Address) -> None:
        """Fetch an agent's label, or all at its address; returns at once. What is under way is not fetched twice."""
        with self._lock:
            self._failures.pop(name, None)
            wanted = self._wanted.setdefault(name, deque())
            if source not in wanted and not self._is_closed:
                wanted.append(source)
            if name in self._threads or self._is_closed:
                return
            thread = threading.Thread(target=self._work, args=(name,), name=f"trunkline-fetch-{name}", daemon=True)
            self._threads[name] = thread
            thread.start()

    def take_failure(self, name: str) -> TrunklineError | None:
        """Return how the last fetch of an agent failed, once; None if it did not, or still goes on."""
        if not self._failures:
            return None
        with self._lock:
            return self._failures.pop(name, None)

    def stop(self) -> None:
        """Start nothing more. What is under way ends when its agent is closed."""
        with self._lock:
            self._is_closed = True
            self._wanted.clear()

    def join(self) -> None:
        """Wait a moment for what was under way to end."""
        deadline = Deadline(JOIN_TIMEOUT)
        for thread in list(self._threads.values()):
            if thread is not threading.current_thread():
                thread.join(deadline.remaining())

    def _work(self, name: str) -> None:
        while True:
            with self._lock:
                wanted = self._wanted.get(name)
                if not wanted:
                    self._wanted.pop(name, None)
                    del self._threads[name]
                    return
                source = wanted[0]
            failure: TrunklineError | None = None
            try:
                self._fetch(name, source)
            except TrunklineError as error:
                log.warning("agent %r (%s) could not be fetched: %s", name, source, error)
                failure = error
            with self._lock:
                if wanted and wanted[0] == source:
                    wanted.popleft()
                if failure is not None and not self._is_closed:
                    self._failures[name] = failure
