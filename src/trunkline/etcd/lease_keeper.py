"""The one stream that refreshes all leases of a client.

Theory of operation. Every request goes out on one stream, without waiting for the answers to those before it;
etcd answers in order, and each answer names its lease. Two threads work on it. Ours, started by the first lease,
opens streams and takes in answers. gRPC's own sender pulls requests from the generator
:meth:`LeaseKeeper._requests`: it waits until leases are due, and it gives the stream up when answers stay away,
since gRPC offers no way to read with a time-out. What was not answered when a stream ends is still due, and so the
first thing that the next one carries.
"""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING, Any

import grpc

from trunkline.backoff import Backoff
from trunkline.errors import ClosedError, StoreError
from trunkline.etcd.connection import ATTEMPT_TIMEOUT
from trunkline.etcd.failure import Failure, Kind
from trunkline.etcd.messages import LEASE_KEEP_ALIVE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trunkline.clock import Clock
    from trunkline.etcd.connection import Connection, Stream
    from trunkline.etcd.lease import Lease

_WINDOW = 1000  # requests under way: more would fill HTTP/2's window, and the sender stand in it when etcd stands still
_STOOD_STILL = 0.5  # seconds; a thread that wakes so much too late tells of a process that did not run

_log = logging.getLogger(__name__)


class _Pipeline:
    """What one stream carries: the requests that are not answered yet. Guarded by the keeper's lock."""

    def __init__(self) -> None:
        self.unanswered: dict[int, float] = {}  # when the request for a lease was sent, the oldest first
        self.is_over = False
        self.is_silent = False
        self.has_answered = False
        self.is_full = False  # whether the sender waits for answers before it sends more
        self.wakes_at = math.inf  # when the sender looks again by itself
        self.wake = threading.Event()
        self._call: Any = None
        self._patient_from = -math.inf

    def begin(self, call: Any) -> None:
        """Take gRPC's call, which may be over already."""
        self._call = call
        if self.is_over:
            call.cancel()

    def end(self) -> None:
        """Give the stream up: wakes its reader and its sender. Idempotent."""
        self.is_over = True
        self.wake.set()
        if self._call is not None:
            self._call.cancel()

    def settle(self, number: int) -> float | None:
        """Return when the request for a lease was sent, which is answered or no longer matters; None if none was."""
        sent_at = self.unanswered.pop(number, None)
        if self.is_full and len(self.unanswered) <= _WINDOW // 2:
            self.is_full = False
            self.wake.set()
        return sent_at

    def wake_before(self, moment: float) -> None:
        """Have the sender look again, if by itself it would do so only after ``moment``."""
        if moment < self.wakes_at:
            self.wake.set()

    def answer_by(self, patience: float) -> float:
        """Return when the stream counts as broken."""
        oldest = next(iter(self.unanswered.values()), math.inf)
        return max(oldest, self._patient_from) + patience

    def judge(self, now: float, patience: float) -> None:
        """End the stream if answers have stayed away for ``patience`` seconds."""
        if now < self.answer_by(patience):
            return
        if now > self.wakes_at + _STOOD_STILL:  # answers may have come meanwhile: let the reader look first
            self._patient_from = now
        else:
            self.is_silent = True
            self.end()


class LeaseKeeper:
    """Refreshes every lease each third of its TTL, all on one stream.

    It has a connection of its own, so that no other traffic delays a refresh. No stream is opened before the first
    refresh is due. An outage loses no lease: only etcd's word that there is none does.
    """

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._lock = threading.Lock()  # guards all below and the times of every lease
        self._leases: dict[int, Lease] = {}
        self._pipeline = _Pipeline()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def add(self, lease: Lease) -> None:
        """Keep a lease alive from now on."""
        with self._lock:
            if self._is_closed:
                return
            self._leases[lease.id] = lease
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="trunkline-etcd-keepalive", daemon=True)
                self._thread.start()
            self._pipeline.wake_before(lease.due_at)

    def remove(self, lease: Lease) -> bool:
        """Let a lease go; return whether it was kept until now."""
        self._connection.check_process()
        with self._lock:
            self._pipeline.settle(lease.id)  # nobody needs that answer
            return self._leases.pop(lease.id, None) is not None

    def close(self) -> None:
        """Let all leases go and join the thread (unless called on it). Idempotent."""
        with self._lock:
            self._is_closed = True
            self._leases.clear()
            self._pipeline.end()
            thread = self._thread
        self._connection.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        backoff = Backoff()
        fruitless = 0  # streams in a row that brought no answer
        is_told = False
        while self._wait_for_due(pipeline := self._new_pipeline()):
            tries, reason = self._carry(pipeline)
            fruitless = 0 if pipeline.has_answered else fruitless + 1
            if not fruitless:
                backoff.reset()
                is_told = False
            elif fruitless >= tries and not self._is_closed:
                level = logging.INFO if is_told else logging.WARNING  # once in an outage
                _log.log(level, "no lease is refreshed by etcd at %s: %s", self._connection.config.url, reason)
                is_told = True
                self._connection.pause(self._at_most_due(backoff.next_delay()))

    def _carry(self, pipeline: _Pipeline) -> tuple[int, str]:
        """Open a stream and read it to its end.

        Returns:
            How many streams in a row may end without an answer before a pause is due, and why this one ended.
        """
        try:
            stream = self._connection.open_stream(
                LEASE_KEEP_ALIVE, self._requests(pipeline), operation="keep leases alive"
            )
        except (StoreError, ClosedError) as error:  # also a missing right: it may be given while the leases live
            return 0, str(error)  # every endpoint was asked just now
        failure = self._read(stream, pipeline)
        reason = f"{stream.channel.endpoint}: {failure.code}: {failure.details}"
        if self._is_closed:
            return 0, reason
        _log.info("keep-alive stream of etcd at %s ended: %s", self._connection.config.url, reason)
        if failure.is_passing:
            self._connection.leave(stream.channel)
        elif failure.kind is Kind.TOKEN and stream.token is not None:
            self._connection.forget_token(stream.token)
            return 2, reason
        else:
            self._postpone_refused(pipeline, reason)
        return len(self._connection.config.endpoints), reason

    def _new_pipeline(self) -> _Pipeline:
        with self._lock:
            self._pipeline = _Pipeline()
            self._pipeline.is_over = self._is_closed
            return self._pipeline

    def _read(self, stream: Stream, pipeline: _Pipeline) -> Failure:
        """Take in answers until the stream ends; return why it did."""
        with self._lock:
            pipeline.begin(stream.call)
        failure = Failure(Kind.UNAVAILABLE, "OK", "the server ended the stream")
        try:
            for response in stream.call:
                self._take_answer(pipeline, response)
        except grpc.RpcError as error:
            failure = Failure.of(error)
        with self._lock:
            pipeline.end()
            if pipeline.is_silent:
                failure = Failure(Kind.TIMED_OUT, "DEADLINE_EXCEEDED", "answers stayed away")
        return failure

    def _take_answer(self, pipeline: _Pipeline, response: Any) -> None:
        with self._lock:
            pipeline.has_answered = True
            sent_at = pipeline.settle(response.ID)
            lease = self._leases.get(response.ID)
            if lease is None or sent_at is None:  # let go meanwhile
                return
            if response.TTL > 0:
                lease.confirm(sent_at)
                pipeline.wake_before(lease.due_at)
                return
            del self._leases[lease.id]
        lease.lose()

    def _postpone_refused(self, pipeline: _Pipeline, reason: str) -> None:
        """Let the lease wait whose refresh ended the stream, lest it does the same to the others' again and again."""
        with self._lock:
            number = next(iter(pipeline.unanswered), 0)  # etcd works in order, so it is the first
            lease = self._leases.get(number)
            if lease is None:
                return
            lease.postpone(self._clock.monotonic())
        _log.warning("lease %x was not refreshed by etcd at %s: %s", number, self._connection.config.url, reason)

    def _requests(self, pipeline: _Pipeline) -> Iterator[Any]:
        """Yield what to send on a stream, until it is over. Runs on gRPC's sender thread."""
        while due := self._wait_for_due(pipeline):
            for number in due:
                with self._lock:
                    if pipeline.is_over:
                        return
                    if number not in self._leases:
                        continue
                    pipeline.unanswered[number] = self._clock.monotonic()
                yield LEASE_KEEP_ALIVE.request(ID=number)

    def _wait_for_due(self, pipeline: _Pipeline) -> list[int]:
        """Wait until leases are due and return their ids, the most urgent first; none once the pipeline is over."""
        while True:
            with self._lock:
                now = self._clock.monotonic()
                patience = max(ATTEMPT_TIMEOUT, _shortest_ttl(self._leases.values()) / 3)
                pipeline.judge(now, patience)
                if pipeline.is_over:
                    return []
                idle = [lease for lease in self._leases.values() if lease.id not in pipeline.unanswered]
                due = [lease for lease in idle if lease.ready_at <= now]
                room = _WINDOW - len(pipeline.unanswered)
                pipeline.is_full = bool(due) and not room
                if due and room:
                    pipeline.wakes_at = now
                    return [lease.id for lease in sorted(due, key=lambda lease: lease.due_at)[:room]]
                pipeline.wakes_at = pipeline.answer_by(patience)
                if not pipeline.is_full:
                    pipeline.wakes_at = min(pipeline.wakes_at, *(lease.due_at for lease in idle), math.inf)
                pipeline.wake.clear()
                delay = pipeline.wakes_at - now
            self._clock.wait(pipeline.wake, None if delay == math.inf else delay)

    def _at_most_due(self, delay: float) -> float:
        """Shorten a pause to the time between two refreshes of the lease with the shortest TTL."""
        with self._lock:
            return min(delay, _shortest_ttl(self._leases.values()) / 3)


def _shortest_ttl(leases: Iterable[Lease]) -> float:
    return min((lease.ttl for lease in leases), default=math.inf)
