"""The threads that carry requests out, and what they share: the segments, the queue, the finished requests."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from trunkline.backend.contract import Status
from trunkline.backend.plugins.gds.segment import SegmentTable
from trunkline.errors import BackendError, ClosedError, ForkedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.backend.plugins.gds.carrier import Carrier
    from trunkline.backend.plugins.gds.library import Library
    from trunkline.backend.plugins.gds.request import GdsRequest
    from trunkline.backend.plugins.gds.segment import Resource

_log = logging.getLogger(__name__)


class Pool:
    """One thread for each carrier, started with the first request. Several requests take turns.

    Args:
        name: The backend's name.
        agent_name: The agent's.
        library: The open library.
        carriers: How each thread has cuFile work.
        chunk: How many pieces of a request a thread takes at a time, from how many are left.
        max_request_size: Most bytes of a piece.
    """

    def __init__(
        self,
        name: str,
        agent_name: str,
        library: Library,
        carriers: list[Carrier],
        chunk: Callable[[int], int],
        max_request_size: int,
    ) -> None:
        self.name = name
        self.agent_name = agent_name
        self.max_request_size = max_request_size
        self.lock = threading.RLock()  # guards all that follows; never held while cuFile moves anything
        self.table = SegmentTable()
        self.finished: dict[GdsRequest, None] = {}
        """Ended and not yet reported, in order."""
        self.is_woken = False
        self.is_closed = False
        self._library = library
        self._carriers = carriers
        self._chunk = chunk
        self._queue: deque[GdsRequest] = deque()
        self._running: set[GdsRequest] = set()
        self._work = threading.Condition(self.lock)
        self._changed = threading.Condition(self.lock)
        self._threads: list[threading.Thread] = []
        self._process = os.getpid()

    def check_open(self) -> None:
        """Raise ClosedError, or ForkedError in a child process."""
        self.check_process()
        if self.is_closed:
            raise ClosedError(f"the {self.name} backend of agent {self.agent_name!r} is closed", agent=self.agent_name)

    def check_process(self) -> None:
        """Raise ForkedError in a child process, for which cuFile does not work."""
        if self._process != os.getpid():
            raise ForkedError(
                f"the {self.name} backend of agent {self.agent_name!r} was made before this process was forked; "
                "make a new agent in the parent, or start the child by spawn",
                agent=self.agent_name,
            )

    def start_threads(self) -> None:
        """Start those that are not there yet (under the lock).

        Raises:
            BackendError: There can be none at all; with fewer than there are carriers it takes longer.
        """
        for number, carrier in list(enumerate(self._carriers))[len(self._threads) :]:
            thread = threading.Thread(
                target=self._run,
                args=(carrier,),
                name=f"trunkline-{self.name.lower()}-{self.agent_name}-{number}",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError as error:
                if self._threads:
                    return
                raise BackendError(
                    f"the {self.name} backend of agent {self.agent_name!r} can't have a thread ({error}): raise the "
                    "limit of processes",
                    agent=self.agent_name,
                ) from error
            self._threads.append(thread)

    def enqueue(self, request: GdsRequest, pieces: int) -> None:
        """Have a request carried out (under the lock)."""
        self._queue.append(request)
        self._running.add(request)
        self._work.notify(-(-pieces // self._chunk(pieces)))

    def wait(self, holds: Callable[[], object], until: float) -> None:
        """Sleep until something holds, or ``time.monotonic()`` reaches ``until``."""
        self.check_process()
        with self.lock:
            while not holds():
                left = until - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(min(left, threading.TIMEOUT_MAX))

    def wake(self) -> None:
        """Have who waits look again."""
        with self.lock:
            self._changed.notify_all()

    def stop(self, request: GdsRequest) -> None:
        """Hand out no more of a request, and cancel what can be cancelled."""
        self.check_process()
        with self.lock:
            if request.status is not Status.IN_PROGRESS:
                return
            request.is_stopping = True
            self._end_if_quiet(request)
        for carrier in self._carriers:
            carrier.cancel(request)

    def drop(self, resources: list[Resource]) -> None:
        """Let go of resources, and give back to cuFile those that nobody holds any more."""
        with self.lock:  # so that nobody registers the same memory again meanwhile
            for resource in resources:
                resource.holders -= 1
            for resource in dict.fromkeys(resources):
                if resource.holders == 0:
                    try:
                        resource.end()
                    except BackendError as error:  # nothing is left to be done about it: it ends with the driver
                        _log.warning("agent %r: %s: %s", self.agent_name, resource.name, error)

    def close(self) -> None:
        """Stop all requests, wait until cuFile has let go of their memory, and end the threads. Idempotent."""
        if self._process != os.getpid():
            return
        with self.lock:
            is_first = not self.is_closed
            self.is_closed = True
            running = list(self._running)
            self._work.notify_all()
            self._changed.notify_all()
        for request in running:
            self.stop(request)
        for thread in self._threads:
            if thread is not threading.current_thread():  # where a dropped agent's end may come about
                thread.join()
        if is_first:
            for carrier in self._carriers:
                carrier.close()
            with self.lock:
                remaining = self.table.remove(self.table.taken())
            self.drop(remaining)
            self._library.close()

    def _run(self, carrier: Carrier) -> None:
        while self._carry_next(carrier):
            pass

    def _carry_next(self, carrier: Carrier) -> bool:
        with self.lock:
            while not self._queue:
                if self.is_closed:
                    return False
                self._work.wait()
            request = self._queue.popleft()
            pieces = request.pieces
            assert pieces is not None
            first, last = request.take(self._chunk(request.left)) if request.left else (0, 0)
            request.running += 1
            if request.left:
                self._queue.append(request)
        moved, failure = pieces.params["size"][:0], ""
        try:
            if last > first:
                with self._library.cuda.current(int(pieces.device[first])):
                    moved, failure = carrier.carry(request, pieces.params[first:last])
        except BackendError as error:  # CUDA refused the GPU
            failure = str(error)
        except Exception as error:  # whatever it was, the request must end, and the thread go on
            _log.exception("agent %r: a thread of the %s backend failed", self.agent_name, self.name)
            failure = f"{type(error).__name__}: {error}"
        with self.lock:
            request.running -= 1
            request.book(first, moved, failure)
            self._end_if_quiet(request)
        if failure:
            for other in self._carriers:
                other.cancel(request)
        return True

    def _end_if_quiet(self, request: GdsRequest) -> None:
        """End a request that is at rest and of which nothing is left (under the lock)."""
        if request.running or request.left or request.status is not Status.IN_PROGRESS:
            return
        if request in self._queue:
            self._queue.remove(request)
        self._running.discard(request)
        self.drop(request.resources)  # first: who sees its end and deregisters finds that cuFile has let go
        request.end(f"the {self.name} backend of agent {self.agent_name!r} was closed" if self.is_closed else "")
        self.finished[request] = None
        self._changed.notify_all()
