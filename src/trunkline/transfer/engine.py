"""What drives transfers: the active set, the progress thread, deadlines, cancellation, the finished queue."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from trunkline.backend.contract import NotifyingBackend, ProgressingBackend, RemoteBackend
from trunkline.clock import Deadline
from trunkline.errors import (
    BackendError,
    ClosedError,
    DeadlineError,
    ForkedError,
    MemoryInUseError,
    TrunklineError,
)
from trunkline.metadata.notification import encode_notification
from trunkline.transfer.combined import CombinedRequest
from trunkline.transfer.handle import TransferHandle
from trunkline.transfer.inbox import Inbox, Notification
from trunkline.transfer.target import Target
from trunkline.transfer.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from trunkline.backend.contract import Backend, BackendPeer, Capabilities, Request
    from trunkline.transfer.plan import TransferPlan
    from trunkline.transfer.state import Event

log = logging.getLogger(__name__)

IDLE_WAKEUP = 60.0
"""Seconds after which a sleeping progress thread looks around although nothing woke it."""

POLL_SPIN = 100e-6
"""Seconds that waiting for a notification polls before it sleeps."""


class Engine:
    """Posts transfers on backends and sees them to their end. Any thread may call any method.

    ``home`` is the agent itself as a target: its section is the agent's registered memory. ``unavailable`` says, by
    name, why backends are not there that should be.

    One progress thread per backend that has to be driven. It stays out of the way while callers poll and sleeps
    when nothing is under way.

    Args:
        name: The agent's name: the sender of its notifications.
        backends: The backends, in order of preference; the engine closes them.
        timeout: Default for waiting calls, in seconds.
        grace: Seconds a cancelled or expired transfer may take to drain before its connection is closed by force.
        on_link_failure: Called from the progress thread when a connection to a peer broke.
    """

    def __init__(
        self,
        name: str,
        backends: Sequence[Backend],
        *,
        timeout: float | None = 30.0,
        grace: float = 1.0,
        on_link_failure: Callable[[BackendPeer], None] | None = None,
    ) -> None:
        self.name = name
        self.backends: dict[str, Backend] = {}
        self.home = Target(name, is_self=True)
        self.timeout = timeout
        self.grace = grace
        self.inbox = Inbox()
        self.active: set[TransferHandle] = set()
        self._finished: deque[TransferHandle] = deque()
        self._on_link_failure = on_link_failure
        self._timers = Timers()
        self._delivery_lock = threading.Lock()  # from a backend's queue to the inbox, in order
        self._closed = False
        self._closing = threading.Event()
        self._backends_lock = threading.Lock()
        self._forked = False
        # Kept, because asking whether an object fits a protocol takes some 10 us, and 90 after a pause.
        self.remote: dict[str, RemoteBackend] = {}
        self.notifying: dict[str, NotifyingBackend] = {}
        self.capabilities: dict[str, Capabilities] = {}
        self.unavailable: dict[str, str] = {}
        self._driven: list[ProgressingBackend] = []
        self._is_asked = False  # whether a backend that nobody drives carries notifications
        self._threads: list[threading.Thread] = []
        for backend in backends:
            self.add_backend(backend)

    def add_backend(self, backend: Backend) -> None:
        """Take one more backend, the last in order of preference; the engine closes it.

        Raises:
            ClosedError: The engine was closed; the backend is still the caller's.
        """
        name = backend.name
        with self._backends_lock:
            self.check_open()
            self.unavailable.pop(name, None)
            self.capabilities[name] = backend.capabilities
            if isinstance(backend, RemoteBackend):
                self.remote[name] = backend
            if isinstance(backend, NotifyingBackend):
                self.notifying[name] = backend
            self.backends[name] = backend
            if not isinstance(backend, ProgressingBackend):
                self._is_asked |= name in self.notifying
                return
            self._driven.append(backend)
            thread = threading.Thread(
                target=self._drive, args=(backend,), name=f"trunkline-progress-{self.name}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def check_open(self) -> None:
        """Raise ClosedError or ForkedError if the engine can't be used."""
        if self._forked:
            raise ForkedError(f"agent {self.name!r} belongs to the parent process: make a new Agent after fork")
        if self._closed:
            raise ClosedError(f"agent {self.name!r} is closed: make a new Agent", agent=self.name)

    @property
    def is_working(self) -> bool:
        """Whether it is open and its threads live."""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    def prepare(
        self,
        plan: TransferPlan,
        target: Target,
        *,
        notify: bytes | None = None,
        deadline: float | None = None,
        tag: Any = None,
    ) -> TransferHandle:
        """Bind a plan to a peer; nothing moves until the handle is posted."""
        self.check_open()
        target.check()
        request: Request
        if plan.parts:
            parts = [(self.bind(part, target), len(part.first_block)) for part in plan.parts]
            request = CombinedRequest(parts, partial(self._announce, target))
        else:
            request = self.bind(plan, target)
        return TransferHandle(self, plan, request, target, notify=notify, deadline=deadline, tag=tag)

    def bind(self, plan: TransferPlan, target: Target) -> Request:
        """Return a plan, of one part, as a request of its backend."""
        name = plan.route.backend
        return self.backends[name].prepare(plan.posting, target.links.get(name))

    def announcing(self, request: Request, plan: TransferPlan, target: Target) -> CombinedRequest:
        """Return a request of a backend that carries no notifications as one that is followed by one.

        Raises:
            BackendError: No backend to the peer carries notifications.
        """
        if not target.is_self and self.carrier(target) is None:
            raise BackendError(
                f"backend {plan.backend} carries no notifications, nor does another one to peer {target.name!r}",
                agent=target.name,
            )
        return CombinedRequest([(request, len(plan.first_block))], partial(self._announce, target))

    def take_finished(self) -> list[TransferHandle]:
        """Drive once, then return the tagged transfers that ended since the last call, each once."""
        self.check_open()
        self._progress()
        finished = []
        while self._finished:
            finished.append(self._finished.popleft())
        return finished

    def take_notifications(self) -> None:
        """Drive once and move what arrived into the inbox."""
        self.check_open()
        if self._progress():
            self._deliver()

    def wait_notification(
        self, deadline: Deadline, matches: Callable[[Notification], bool] | None = None
    ) -> Notification:
        """Wait for the oldest notification that matches: poll briefly, then sleep until one arrives.

        Raises:
            DeadlineError: None came in time.
            NotificationOverflowError: Some were dropped.
            ClosedError: The engine was closed meanwhile.
        """
        spin = Deadline(deadline.remaining(at_most=POLL_SPIN))
        while True:
            self.take_notifications()
            found = self.inbox.pop(matches)
            if found is not None:
                return found
            if spin.has_passed:
                break
        found = self.inbox.wait(deadline, matches)
        if found is None:
            self.check_open()
            raise DeadlineError(
                f"agent {self.name!r} got no {'such ' if matches else ''}notification in {deadline.elapsed:.1f} s",
                agent=self.name,
            )
        return found

    def notify(self, target: Target, payload: bytes) -> None:
        """Send a message to a peer; returns at once.

        Raises:
            PeerGoneError: The peer is gone.
            BackendError: No backend to it carries notifications, or the payload is too large.
        """
        self.check_open()
        target.check()
        self._announce(target, encode_notification(self.name, payload))

    def schedule(self, at: float, handle: TransferHandle, round_number: int, event: Event | None) -> None:
        """At ``time.monotonic() == at``, if that round still runs, give the handle EXPIRE, or with None force it."""
        if self._timers.add(at, handle, round_number, event, active=len(self.active)):
            for backend in self._driven:
                backend.wake()

    def ended(self, handle: TransferHandle) -> None:
        """Book a handle's end (called by the handle, once a round, under its lock)."""
        self.active.discard(handle)
        if handle.tag is not None:
            self._finished.append(handle)

    def tell_failure(self, handle: TransferHandle, notice: bytes) -> None:
        """Send a promised notification as ``ok=False``; if that fails too, the peer hears nothing."""
        target = handle.target
        if not target.hears_failures or target.gone is not None or self._closed:
            return
        try:
            self._announce(target, notice, failure=True)
        except TrunklineError as error:
            log.debug("could not tell %r of a failed transfer: %s", target.name, error)

    def call_back(self, callback: Callable[[TransferHandle], object], handle: TransferHandle) -> None:
        """Run a done callback; its exceptions are logged, since they have no caller to go to."""
        try:
            callback(handle)
        except Exception:
            log.exception("a done callback of %r failed", handle)

    def check_unused(self, backend: str, slots: NDArray[np.int32], deadline: Deadline) -> None:
        """Wait until no posted transfer of ours uses these local segments.

        Raises:
            MemoryInUseError: One still does at the deadline.
        """
        for handle in [handle for handle in list(self.active) if handle.uses_local_slots(backend, slots)]:
            try:
                handle.wait(deadline.remaining())
            except TrunklineError:
                if not handle.state.is_quiet:
                    raise MemoryInUseError(
                        f"{handle!r} uses this memory: wait for it or cancel it before deregistering",
                        agent=self.name,
                    ) from None

    def forget_target(self, target: Target, reason: str) -> None:
        """Make everything posted to a peer quiet now."""
        for handle in list(self.active):
            if handle.target is target:
                handle.abort(reason)

    def after_fork(self) -> None:
        """Make the engine unusable in a forked child; nothing shared with the parent is closed."""
        self._forked = True
        self._closed = True

    def drain(self, deadline: Deadline) -> None:
        """Take no more transfers; cancel what runs, let it drain until the deadline, force the rest. Idempotent."""
        if self._closed:
            return
        self._closed = True
        running = list(self.active)
        for handle in running:
            handle.cancel()
        drain = Deadline(deadline.remaining(at_most=self.grace))
        for handle in running:
            try:
                handle.wait(drain.remaining())
            except TrunklineError:
                handle.abort(f"agent {self.name!r} was closed")

    def close(self) -> None:
        """End the threads and the backends, after :meth:`drain` and with all peers closed. Idempotent."""
        with self._backends_lock:  # from here on there come no more
            self._closed = True
            self._closing.set()
        for backend in self._driven:
            backend.wake()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self.inbox.close()
        for each in self.backends.values():
            each.close()
        for handle in list(self.active):  # posted by another thread while :meth:`drain` looked
            handle.settle()

    def carrier(self, target: Target) -> tuple[NotifyingBackend, BackendPeer] | None:
        """Return the backend that carries notifications to a peer, and its link; None if none does."""
        for name, link in target.links.items():
            backend = self.notifying.get(name)
            if backend is not None:
                return backend, link
        return None

    def _announce(self, target: Target, payload: bytes, *, failure: bool = False) -> Request | None:
        """Send an encoded notification; to the agent itself it is delivered if no backend carries it."""
        carrier = self.carrier(target)
        if carrier is not None:
            backend, link = carrier
            return backend.notify(link, payload, failure=failure)
        if not target.is_self:
            raise BackendError(f"no backend to peer {target.name!r} carries notifications", agent=target.name)
        with self._delivery_lock:
            self.inbox.deliver([(payload, failure)], 0)
        return None

    def _progress(self) -> bool:
        """Drive once; return whether notifications may have arrived."""
        has_news = self._is_asked
        for backend in self._driven:
            if backend.progress():
                self._settle_finished(backend)
                has_news = True
        return has_news

    def _drive(self, backend: ProgressingBackend) -> None:
        try:
            while not self._closing.is_set():
                backend.run(self._timers.next(time.monotonic() + IDLE_WAKEUP))
                self._settle_finished(backend)
                for link in backend.take_failed_peers():
                    if self._on_link_failure is not None:
                        self._on_link_failure(link)
                self._deliver()
                self._fire_timers()
        except ClosedError:
            # A done callback, or the end of an agent that was dropped on this thread, closed it underneath.
            if not self._closing.is_set():
                raise

    @staticmethod
    def _settle_finished(backend: ProgressingBackend) -> None:
        for request in backend.take_finished():
            handle = request.owner
            if isinstance(handle, TransferHandle):
                handle.settle()

    def _deliver(self) -> None:
        with self._delivery_lock:
            for backend in list(self.notifying.values()):  # another thread may just open one more
                payloads, dropped = backend.take_notifications()
                if payloads or dropped:
                    self.inbox.deliver(payloads, dropped)

    def _fire_timers(self) -> None:
        for handle, event in self._timers.take_due(time.monotonic()):
            if event is not None:
                handle.end(event)
            else:
                handle.abort(f"did not drain within {self.grace:g} s of being cancelled")
