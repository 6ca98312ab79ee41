"""One watch: what it knows, what it needs, and the queue its reader takes events from. No I/O.

Theory of operation. ``revision`` is the last revision whose changes are in the queue (or were taken). A watch is
either *following*, and then the stream has or will have a server-side watcher from ``revision + 1``; or it
*must list*: at the start, and whenever history was lost. A listing goes into the queue as it is, replaces all that
was known, and sets ``revision``. A *suspect* watch (the server claims an older revision than ours) must list too,
but goes on without a gap if the answer shows that the server was only behind its peers.

A reader that does not come makes the queue overflow: it is emptied, and the watch is *stalled* until the reader
calls again; then it must list. So a queue is bounded and a forgotten watch costs the server nothing.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from trunkline.clock import Clock, Deadline
from trunkline.errors import ClosedError, ForkedError, StoreError
from trunkline.etcd.messages import WATCH
from trunkline.etcd.value import Change, Interruption, KeyValue, Listing, WatchEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

QUEUE_LIMIT = 64 << 20
_EVENT_SIZE = 256  # what an event takes beside its key and value, roughly
DELETE = 1
"""A type of events: mvccpb.Event.EventType."""


class Watch:
    """Changes of one key or range, in order and without gaps. Any thread may use it.

    Made by :meth:`trunkline.etcd.client.EtcdClient.watch`. The methods from :meth:`create_request` on are the
    stream's, which holds ``lock`` when it calls them.

    Args:
        key: The key, or the start of the range.
        range_end: End of the range (exclusive); empty for a single key.
        after: Revision after which changes are wanted; None to begin with a Listing.
        clock: Measures time-outs.
        lock: Shared by all watches of a stream.
        check_process: Raises ForkedError in a forked child.
        on_demand: Called (without the lock) when the reader has come back to a stalled watch.
        on_close: Called (without the lock) once, when the reader closes.
        wake: Set whenever there may be something to take; None for an event of the watch's own. A given one may serve
            several watches, so only its owner clears it.
        queue_limit: Bytes after which a reader counts as absent.
    """

    def __init__(
        self,
        key: bytes,
        range_end: bytes,
        after: int | None,
        *,
        clock: Clock,
        lock: threading.Lock,
        check_process: Callable[[], None],
        on_demand: Callable[[Watch], None],
        on_close: Callable[[Watch], None],
        wake: threading.Event | None = None,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self.key = key
        self.range_end = range_end
        self.must_list = after is None
        self.is_stalled = False
        self.was_denied = False
        self.has_history = False
        self._revision = after or 0
        self._cluster: int | None = None
        self._is_suspect = False
        self._is_interrupted = False
        self._is_denied = False
        self._error: StoreError | None = None
        self._is_closed = False
        self._fragments: list[Any] = []
        self._fragments_size = 0
        self._queue: deque[WatchEvent] = deque()
        self._queue_size = 0
        self._queue_limit = queue_limit
        self._clock = clock
        self._lock = lock
        self._wake = threading.Event() if wake is None else wake
        self._is_shared = wake is not None
        self._check_process = check_process
        self._on_demand = on_demand
        self._on_close = on_close

    def next(self, timeout: float | None) -> WatchEvent | None:
        """Wait for the next event; None when ``timeout`` seconds passed (None waits for ever).

        Raises:
            StoreAuthError: The right to watch is missing; the watch has ended. (One that is taken away later is an
                Interruption, and the watch goes on when it is given back.)
            ClosedError: The watch or its client was closed.
            ForkedError: Made by a parent process.
        """
        self._check_process()
        deadline = Deadline(timeout, self._clock)
        while True:
            with self._lock:
                if self._is_closed:
                    raise ClosedError("the watch is closed", key=self._name)
                if self._queue:
                    event = self._queue.popleft()
                    self._queue_size -= _size_of(event)
                    return event
                if self._error is not None:
                    raise self._error
                was_stalled, self.is_stalled = self.is_stalled, False
                if not self._is_shared:
                    self._wake.clear()
            if was_stalled:
                self._on_demand(self)
            if deadline.has_passed:
                return None
            self._clock.wait(self._wake, deadline.remaining())

    def close(self) -> None:
        """Stop. Idempotent; wakes a thread that waits in :meth:`next`. Does nothing in a forked child."""
        try:
            self._check_process()
        except ForkedError:
            return
        with self._lock:
            was_closed = self._is_closed
            self.end()
        if not was_closed:
            self._on_close(self)

    def __iter__(self) -> Iterator[WatchEvent]:
        """Iterate until closed."""
        while True:
            try:
                event = self.next(None)
            except ClosedError:
                return
            assert event is not None
            yield event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Watch {self._name!r} revision={self._revision}>"

    @property
    def _name(self) -> str:
        return self.key.decode("utf-8", "surrogateescape")

    def create_request(self, watch_id: int) -> Any:
        """Return the request that makes the server-side watcher this watch wants."""
        self._drop_fragments()
        return WATCH.request(
            create_request={
                "key": self.key,
                "range_end": self.range_end,
                "start_revision": self._revision + 1,
                "progress_notify": True,
                "fragment": True,
                "watch_id": watch_id,
            }
        )

    def take_listing(self, listing: Listing) -> None:
        """Go on from a listing that was asked for because of ``must_list``."""
        is_unbroken = self._is_suspect and listing.cluster == self._cluster and listing.revision >= self._revision
        self.must_list = self._is_suspect = self._is_denied = False
        self.has_history = True
        if not is_unbroken:
            self._cluster = listing.cluster
            self._revision = listing.revision
            self._is_interrupted = False
            # The listing replaces the changes that were not taken yet; that there was an outage stays news.
            outages = [event for event in self._queue if isinstance(event, Interruption)]
            self._queue = deque(outages[-1:])
            self._queue_size = sum(map(_size_of, self._queue))
            self._enqueue(listing)

    def take_response(self, response: Any) -> None:
        """Take in a response that does not cancel; afterwards ``must_list`` or ``is_stalled`` may be set."""
        if response.created:
            self._take_created(response.header)
        elif response.events:
            self._take_events(response)
        elif not self._fragments:  # a progress notify: nothing up to here is missing
            self._revision = max(self._revision, response.header.revision)

    def lose_history(self) -> None:
        """Note that the server can't or won't continue from where we are."""
        self._drop_fragments()
        self.must_list = True
        self._is_suspect = False

    def interrupt(self, reason: str) -> None:
        """Tell the reader that no endpoint answers, once per outage."""
        if not self._is_interrupted:
            self._is_interrupted = True
            self._enqueue(Interruption(reason))

    def deny(self, reason: str) -> bool:
        """Note that the right was taken away, and tell the reader once; return whether this was the first time."""
        self.lose_history()
        is_news = not self._is_denied
        if is_news:
            self._is_denied = self._is_interrupted = True
            self._enqueue(Interruption(reason))
        return is_news

    def fail(self, error: StoreError) -> None:
        """End the watch with an error, which :meth:`next` raises after the events before it."""
        self._error = error
        self._wake.set()

    def end(self) -> None:
        """End the watch because it was closed."""
        self._is_closed = True
        self._queue.clear()
        self._drop_fragments()
        self._wake.set()

    def _take_created(self, header: Any) -> None:
        self.was_denied = False
        self.has_history = True
        if self._cluster not in {None, header.cluster_id}:
            self.lose_history()
        elif header.revision < self._revision:
            self.lose_history()
            self._is_suspect = True
        elif self._is_interrupted:
            self._is_interrupted = False
            self._enqueue(Change((), (), self._revision))
        self._cluster = header.cluster_id

    def _take_events(self, response: Any) -> None:
        self._fragments.extend(response.events)
        self._fragments_size += sum(_EVENT_SIZE + len(event.kv.key) + len(event.kv.value) for event in response.events)
        if self._queue_size + self._fragments_size > self._queue_limit:
            self._stall()
        elif not response.fragment:
            events = self._fragments
            self._drop_fragments()
            for revision, group in itertools.groupby(events, key=lambda event: event.kv.mod_revision):
                if revision > self._revision:
                    self._revision = revision
                    self._enqueue(_change(revision, list(group)))

    def _drop_fragments(self) -> None:
        self._fragments = []
        self._fragments_size = 0

    def _stall(self) -> None:
        self._queue.clear()
        self._queue_size = 0
        self.lose_history()
        self.is_stalled = True
        self._wake.set()  # a reader that waits is there after all

    def _enqueue(self, event: WatchEvent) -> None:
        self._queue.append(event)
        self._queue_size += _size_of(event)
        self._wake.set()


def _change(revision: int, events: list[Any]) -> Change:
    return Change(
        put=tuple(KeyValue.of(event.kv) for event in events if event.type != DELETE),
        deleted=tuple(event.kv.key for event in events if event.type == DELETE),
        revision=revision,
    )


def _size_of(event: WatchEvent) -> int:
    if isinstance(event, Change):
        return sum(_EVENT_SIZE + len(entry.key) + len(entry.value) for entry in event.put) + sum(
            _EVENT_SIZE + len(key) for key in event.deleted
        )
    return _EVENT_SIZE
