"""The one stream that carries all watches of a client.

Two threads work on it. Ours, started by the first watch, opens streams and takes in what they bring. gRPC's own
sender pulls requests from the generator :meth:`WatchStream._requests`: there it is made sure that the cluster still has
the history that was watched, and the listings are made that watches need before they can follow, so that reading never
waits for that.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import grpc

from trunkline.backoff import Backoff
from trunkline.clock import Clock, Deadline
from trunkline.errors import ClosedError, StoreAuthError, StoreError, StoreUnavailableError
from trunkline.etcd.failure import Failure, Kind, classify, store_error
from trunkline.etcd.history import History
from trunkline.etcd.messages import WATCH
from trunkline.etcd.watch import DELETE, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from trunkline.etcd.connection import Connection, Stream
    from trunkline.etcd.value import Listing

CANCEL_DELAY = 0.05
"""Seconds after a watch was closed until the server is told, with all that were closed meanwhile. Nobody waits for it,
and the sending and the answers would take processor time from whoever just got what the watches were for."""

DENIAL_PAUSE = 2.0
"""Seconds until a watch whose right was taken away asks again whether it was given back."""

RELIST_SPREAD = 0.5  # seconds over which clients spread their listings after history was lost
_LIST_TIMEOUT = 60.0
_NO_WATCH = -1  # the id newer servers give to a watcher they refused to create

_log = logging.getLogger(__name__)


class _Attachment:
    """What one stream carries: which watches, under which server-side ids. Guarded by the stream's lock."""

    def __init__(self, watches: Iterable[Watch]) -> None:
        self.watches: dict[int, Watch] = {}
        self.ids: dict[Watch, int] = {}
        self.to_attach: deque[Watch] = deque(watches)  # may hold some that were closed, or that are stalled
        self.awaiting_created: deque[int] = deque()
        self.to_cancel: deque[int] = deque()
        self.cancel_at: Deadline | None = None  # for all in ``to_cancel``
        self.denied: deque[tuple[Deadline, Watch]] = deque()  # to attach then
        self.is_over = False
        self.has_answered = False
        self.has_paused = False  # before listing again what other clients list too
        self.has_requests = threading.Event()  # wakes the sender
        self._call: Any = None
        self._last_id = 0

    def begin(self, call: Any) -> None:
        """Take gRPC's call, which may be over already."""
        self._call = call
        if self.is_over:
            call.cancel()

    def end(self) -> None:
        """Give the stream up: wakes its reader and its sender. Idempotent."""
        self.is_over = True
        self.has_requests.set()
        if self._call is not None:
            self._call.cancel()

    def attach(self, watch: Watch) -> int:
        """Take a watch on and return its new id."""
        self._last_id += 1
        self.watches[self._last_id] = watch
        self.ids[watch] = self._last_id
        self.awaiting_created.append(self._last_id)
        return self._last_id

    def attach_soon(self, watch: Watch) -> None:
        """Have a watch taken on by the sender."""
        self.to_attach.append(watch)
        self.has_requests.set()

    def attach_later(self, watch: Watch, clock: Clock) -> None:
        """Have a watch that was denied taken on after a while."""
        self.denied.append((Deadline(DENIAL_PAUSE, clock), watch))
        self.has_requests.set()

    def next_due(self) -> float | None:
        """Return the seconds after which there is something to send; None if there is nothing to wait for."""
        deadlines = [self.denied[0][0]] if self.denied else []
        deadlines.extend([self.cancel_at] if self.cancel_at is not None else [])
        return min((left for each in deadlines if (left := each.remaining()) is not None), default=None)

    def forget(self, watch: Watch) -> int | None:
        """Forget a watch that the server has cancelled; return the id it had."""
        watch_id = self.ids.pop(watch, None)
        if watch_id is not None:
            del self.watches[watch_id]
        return watch_id

    def detach(self, watch: Watch, clock: Clock) -> None:
        """Forget a watch and have its server-side watcher cancelled soon."""
        watch_id = self.forget(watch)
        if watch_id is not None:
            self.to_cancel.append(watch_id)
            self.cancel_at = self.cancel_at or Deadline(CANCEL_DELAY, clock)
            self.has_requests.set()


class WatchStream:
    """Carries any number of watches over one stream, and opens it again as often as it breaks.

    Args:
        connection: Where streams are opened. Closing it is left to its owner.
        clock: Measures pauses and time-outs.
        list_range: Reads a range, for watches that must list.
        read_key: Reads a key at a revision, to tell whether history is unbroken.
    """

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        list_range: Callable[[bytes, bytes, float], Listing],
        read_key: Callable[[bytes, int, float], Listing],
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._list_range = list_range
        self._lock = threading.Lock()  # guards all below and the state of every watch
        self._watches: dict[Watch, None] = {}  # in the order of their opening
        self._attachment = _Attachment(())
        self._history = History(read_key)
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._has_watches = threading.Event()

    def open_watch(self, key: bytes, range_end: bytes, after: int | None, wake: threading.Event | None = None) -> Watch:
        """Begin a watch; returns at once."""
        watch = Watch(
            key,
            range_end,
            after,
            clock=self._clock,
            lock=self._lock,
            check_process=self._connection.check_process,
            on_demand=self._attach_soon,
            on_close=self._close_watch,
            wake=wake,
        )
        with self._lock:
            self._connection.check_usable()
            self._watches[watch] = None
            self._attachment.attach_soon(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="trunkline-etcd-watch", daemon=True)
                self._thread.start()
        self._has_watches.set()
        return watch

    def close(self) -> None:
        """End all watches, close the connection and join the thread (unless called on it). Idempotent."""
        self._connection.close()  # first, so that no watch is opened after those that are here have ended
        with self._lock:
            self._is_closed = True
            for watch in self._watches:
                watch.end()
            self._watches.clear()
            self._attachment.end()
            thread = self._thread
        self._has_watches.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _close_watch(self, watch: Watch) -> None:
        with self._lock:
            self._watches.pop(watch, None)
            self._attachment.detach(watch, self._clock)

    def _attach_soon(self, watch: Watch) -> None:
        with self._lock:
            self._attachment.attach_soon(watch)

    def _run(self) -> None:
        backoff = Backoff()
        while (attachment := self._next_attachment()) is not None:
            try:
                stream = self._connection.open_stream(WATCH, self._requests(attachment), operation="watch")
            except ClosedError:
                return
            except StoreError as error:
                if isinstance(error, StoreAuthError):
                    self._deny_all(error)
                reason = str(error)
            else:
                reason = self._read(stream, attachment)
            if attachment.has_answered:
                backoff.reset()
            else:
                self._interrupt_all(reason)
                self._connection.pause(backoff.next_delay())

    def _next_attachment(self) -> _Attachment | None:
        """Wait until there is a watch to carry; None once closed."""
        while True:
            with self._lock:
                if self._is_closed:
                    return None
                if self._watches:
                    self._attachment = _Attachment(self._watches)
                    return self._attachment
                self._has_watches.clear()
            self._clock.wait(self._has_watches, None)

    def _read(self, stream: Stream, attachment: _Attachment) -> str:
        """Take in responses until the stream ends; return why it did."""
        with self._lock:
            attachment.begin(stream.call)
        try:
            for response in stream.call:
                with self._lock:
                    attachment.has_answered = True
                    self._take_response(attachment, response, stream)
            reason = "the server ended the stream"
        except grpc.RpcError as error:
            failure = Failure.of(error)
            reason = f"{stream.channel.endpoint}: {failure.code}: {failure.details}"
        with self._lock:
            attachment.end()
        _log.info("watch stream of etcd at %s ended: %s", self._connection.config.url, reason)
        self._connection.leave(stream.channel)
        return reason

    def _take_response(self, attachment: _Attachment, response: Any, stream: Stream) -> None:
        watch_id = response.watch_id
        if response.created and attachment.awaiting_created:
            first = attachment.awaiting_created.popleft()  # the server answers in order
            watch_id = first if watch_id == _NO_WATCH else watch_id
        watch = attachment.watches.get(watch_id)
        if watch is None:  # closed meanwhile
            return
        if not response.canceled:
            watch.take_response(response)
            if response.events:
                self._history.note(event.kv for event in response.events if event.type != DELETE)
            if watch.must_list:
                attachment.detach(watch, self._clock)
                attachment.attach_soon(watch)
            return
        attachment.forget(watch)
        kind = classify(response.cancel_reason, Kind.UNAVAILABLE)
        if kind in {Kind.AUTH, Kind.TOKEN}:
            self._take_denial(watch, response.cancel_reason, stream, attachment)
        else:
            _log.info("etcd cancelled the watch of %r: %s", watch.key, response.cancel_reason or "compacted")
            watch.lose_history()
            attachment.attach_soon(watch)

    def _take_denial(self, watch: Watch, reason: str, stream: Stream, attachment: _Attachment) -> None:
        """A stream keeps the token it was opened with; when that has expired, new watches are denied."""
        if stream.token and not watch.was_denied:
            watch.was_denied = True
            self._connection.forget_token(stream.token)
            attachment.end()
            return
        error = store_error(
            Failure(Kind.AUTH, "PERMISSION_DENIED", reason),
            operation="watch",
            key=watch.key,
            url=self._connection.config.url,
            endpoint=stream.channel.endpoint,
            deadline=Deadline(None, self._clock),
        )
        self._deny(watch, error, attachment)

    def _requests(self, attachment: _Attachment) -> Iterator[Any]:
        """Yield what to send on a stream, until it is over. Runs on gRPC's sender thread."""
        self._check_history(attachment)
        while True:
            with self._lock:
                if attachment.is_over:
                    return
                request, watch = self._next_request(attachment)
                if request is None and watch is None:
                    attachment.has_requests.clear()
                due = attachment.next_due()
            if request is not None:
                yield request
            elif watch is not None:
                self._list(watch, attachment)
            else:
                self._clock.wait(attachment.has_requests, due)

    def _check_history(self, attachment: _Attachment) -> None:
        """Have watches list again if the cluster may not be the one that was watched before."""
        with self._lock:
            if not any(watch.has_history for watch in self._watches):
                return
        try:
            if self._history.is_unbroken(_LIST_TIMEOUT):
                return
        except (StoreUnavailableError, ClosedError):
            with self._lock:
                attachment.end()
            return
        except StoreError:  # a right was taken away: what watches are told says more
            return
        with self._lock:
            for watch in self._watches:
                watch.lose_history()

    def _next_request(self, attachment: _Attachment) -> tuple[Any, Watch | None]:
        """Return what to send; or the watch that must list before anything can be sent for it."""
        if attachment.cancel_at is not None and attachment.cancel_at.has_passed:
            watch_id = attachment.to_cancel.popleft()
            if not attachment.to_cancel:
                attachment.cancel_at = None
            return WATCH.request(cancel_request={"watch_id": watch_id}), None
        while attachment.denied and attachment.denied[0][0].has_passed:
            attachment.to_attach.append(attachment.denied.popleft()[1])
        while attachment.to_attach:
            watch = attachment.to_attach.popleft()
            if watch not in self._watches or watch in attachment.ids or watch.is_stalled:
                continue
            if watch.must_list:
                return None, watch
            return watch.create_request(attachment.attach(watch)), None
        return None, None

    def _list(self, watch: Watch, attachment: _Attachment) -> None:
        if watch.has_history and not attachment.has_paused:
            attachment.has_paused = True
            self._connection.pause(random.uniform(0, RELIST_SPREAD))  # noqa: S311 - no secret depends on it
        try:
            listing = self._list_range(watch.key, watch.range_end, _LIST_TIMEOUT)
        except (StoreUnavailableError, ClosedError):
            with self._lock:
                attachment.end()  # its reader goes on from here
        except StoreAuthError as error:
            with self._lock:
                self._deny(watch, error, attachment)
        except StoreError as error:
            with self._lock:
                self._fail(watch, error)
        else:
            with self._lock:
                if not attachment.is_over:  # else the next stream lists again
                    watch.take_listing(listing)
                    self._history.note(listing.entries)
                    attachment.attach_soon(watch)

    def _fail(self, watch: Watch, error: StoreError) -> None:
        watch.fail(error)
        self._watches.pop(watch, None)

    def _interrupt_all(self, reason: str) -> None:
        with self._lock:
            for watch in self._watches:
                watch.interrupt(reason)

    def _deny(self, watch: Watch, error: StoreError, attachment: _Attachment) -> None:
        """End a watch that has no right; one that had it is interrupted, and asks again until it has it again."""
        if not watch.has_history:
            self._fail(watch, error)
            return
        self._tell_denial(watch, error)
        attachment.attach_later(watch, self._clock)

    def _deny_all(self, error: StoreError) -> None:
        """Nobody lets us in: end the watches that never had the right; the others are attached to the next stream."""
        with self._lock:
            for watch in list(self._watches):
                if watch.has_history:
                    self._tell_denial(watch, error)
                else:
                    self._fail(watch, error)

    def _tell_denial(self, watch: Watch, error: StoreError) -> None:
        if watch.deny(str(error)):
            _log.warning("the watch of %r was denied, and asks again: %s", watch.key, error)
