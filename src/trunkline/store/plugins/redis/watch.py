"""Watches, and the two threads that serve all watches of a store.

One thread blocks on the stream ``wake`` and tells the other that there is news. That one asks for the changes of every
watch from which everything was taken, at least once a second: so also leases that ran out are noticed, of which
Redis itself would not tell. Nothing is asked for a watch that is not read; if the changes it has yet to see are dropped
meanwhile it gets a snapshot.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from redis import exceptions

from trunkline.backoff import Backoff
from trunkline.clock import Clock, Deadline
from trunkline.errors import ClosedError, StoreAuthError, StoreError, TrunklineError
from trunkline.store.contract import Changed, Interrupted, Snapshot, WatchEvent
from trunkline.store.plugins.redis.codec import decode_change, decode_entries, key_range
from trunkline.store.plugins.redis.connection import ATTEMPT_TIMEOUT, WAKE, Connection, Link
from trunkline.store.plugins.redis.failure import reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_LOOK_INTERVAL = 1.0
_BLOCK_MS = 5000

_log = logging.getLogger(__name__)


class RedisWatch:
    """A range, the revision up to which its changes were received, and what of them was not taken yet."""

    def __init__(
        self, watcher: Watcher, key: str, *, prefix: bool, after: int | None, wake: threading.Event | None
    ) -> None:
        self.range = key_range(key, prefix=prefix)
        self.position = after
        self.has_begun = False
        self._watcher = watcher
        self._key = key
        self._lock = threading.Lock()  # guards the four below and the clearing of an event of our own
        self._events: deque[WatchEvent] = deque()
        self._is_interrupted = False
        self._is_closed = False
        self._error: TrunklineError | None = None
        self._ready = threading.Event() if wake is None else wake
        self._is_shared = wake is not None

    @property
    def wants_more(self) -> bool:
        """Whether everything was taken."""
        return not self._events and not self._is_closed

    def next(self, timeout: float | None) -> WatchEvent | None:
        deadline = Deadline(timeout, self._watcher.clock)
        while True:
            event = self._take()
            if event is not None:
                return event
            if deadline.has_passed or not self._watcher.clock.wait(self._ready, deadline.remaining()):
                return None

    def close(self) -> None:
        self._watcher.remove(self)
        with self._lock:
            self._is_closed = True
            self._ready.set()

    def deliver(self, events: list[WatchEvent], position: int) -> None:
        """Take in what was found. Called by the watcher."""
        with self._lock:
            self.position = position
            self.has_begun = True
            if self._is_interrupted and not events:
                events = [Changed((), (), position)]
            self._is_interrupted = False
            self._events.extend(events)
            if events:
                self._ready.set()

    def interrupt(self, error: StoreError) -> None:
        """Note that the store can't be asked. Called by the watcher."""
        with self._lock:
            if self._is_interrupted or self._error is not None:
                return
            if isinstance(error, StoreAuthError) and not self.has_begun:
                self._error = error
            else:
                self._is_interrupted = True
                self._events.append(Interrupted(str(error)))
            self._ready.set()

    def __iter__(self) -> Iterator[WatchEvent]:
        with suppress(ClosedError):
            while True:
                event = self.next(None)
                if event is not None:
                    yield event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> WatchEvent | None:
        self._watcher.check_process()
        with self._lock:
            if self._is_closed:
                raise ClosedError(f"a watch of {self._key!r} on {self._watcher.url} was closed", key=self._key)
            if self._error is not None:
                raise self._error
            event = self._events.popleft() if self._events else None
            if event is None and not self._is_shared:
                self._ready.clear()
        if event is not None:
            self._watcher.look_again(self)
        return event


class Watcher:
    """Finds what is new for the watches of one store. Its threads begin with the first watch."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self.clock = clock
        self.url = connection.config.url
        self._connection = connection
        self._lock = threading.Lock()  # guards all below
        self._watches: set[RedisWatch] = set()
        self._threads: list[threading.Thread] = []
        self._link: Link | None = None
        self._revision = 0
        self._news = threading.Event()
        self._closed = threading.Event()

    def check_process(self) -> None:
        """Raise ForkedError if this is a child of the process that made it: no thread serves it here."""
        self._connection.check_process()

    def add(self, watch: RedisWatch) -> None:
        """Serve a watch."""
        with self._lock:
            if self._closed.is_set():
                return
            self._watches.add(watch)
            if not self._threads:
                work = {"watch": self._run, "wake": self._listen}
                self._threads = [
                    threading.Thread(target=each, name=f"trunkline-redis-{name}", daemon=True)
                    for name, each in work.items()
                ]
                for thread in self._threads:
                    thread.start()
        self._news.set()

    def remove(self, watch: RedisWatch) -> None:
        """Serve a watch no more. Idempotent."""
        with self._lock:
            self._watches.discard(watch)

    def look_again(self, watch: RedisWatch) -> None:
        """Note that something was taken from a watch: there may be more."""
        if watch.wants_more and (watch.position is None or watch.position < self._revision):
            self._news.set()

    def close(self) -> None:
        """End the threads (unless called on one of them). Idempotent."""
        self._closed.set()
        self._news.set()
        with self._lock:
            link, threads = self._link, list(self._threads)
        if link is not None:
            link.disconnect()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def _run(self) -> None:
        backoff = Backoff()
        while not self._closed.is_set():
            self._news.clear()
            with self._lock:
                watches = list(self._watches)
            try:
                pause = self._look([each for each in watches if each.wants_more])
                backoff.reset()
            except ClosedError:
                return
            except StoreError as error:
                _log.info("watches of %s are interrupted: %s", self.url, error)
                for watch in watches:
                    watch.interrupt(error)
                self.clock.wait(self._closed, backoff.next_delay())
            else:
                self.clock.wait(self._news, pause if watches else None)

    def _look(self, watches: list[RedisWatch]) -> float:
        """Deliver what is new; return the seconds after which to look again, news or not."""
        words: list[Any] = [len(watches)]
        for watch in watches:
            words += ["" if watch.position is None else watch.position, *watch.range]
        revision, left, found = self._connection.call("follow", *words, operation="watch", timeout=ATTEMPT_TIMEOUT)
        self._revision = revision
        for watch, (is_change, position, *rest) in zip(watches, found, strict=True):
            events: list[WatchEvent]
            with reading(self.url):
                if is_change:
                    pairs = zip(rest[::2], rest[1::2], strict=True)
                    events = [decode_change(parts, number) for number, parts in pairs]
                else:
                    events = [Snapshot(decode_entries(rest), position)]
            watch.deliver(events, position)
        if any(watch.wants_more and watch.position != revision for watch in watches):
            return 0.0
        return min(_LOOK_INTERVAL, (left + 1) / 1000) if left >= 0 else _LOOK_INTERVAL

    def _listen(self) -> None:
        """Block until there is news, again and again; failures are left to the other thread to notice."""
        backoff = Backoff()
        while not self._closed.is_set():
            link: Link | None = None
            try:
                link = self._connection.open_link()
                with self._lock:
                    self._link = link
                self._block(link, backoff)
            except (exceptions.RedisError, OSError, StoreError, AttributeError, ValueError) as error:
                # The last two: the client's when another thread disconnects it.
                _log.debug("no news from %s: %s", self.url, error)
            if link is not None:
                link.disconnect()
            self._news.set()
            self.clock.wait(self._closed, backoff.next_delay())

    def _block(self, link: Link, backoff: Backoff) -> None:
        position: bytes | str = "0-0"
        while not self._closed.is_set():
            found = link.command(
                "XREAD", "BLOCK", _BLOCK_MS, "STREAMS", WAKE, position, timeout=_BLOCK_MS / 1000 + ATTEMPT_TIMEOUT
            )
            backoff.reset()
            if found:
                position = found[0][1][-1][0]
                self._news.set()
