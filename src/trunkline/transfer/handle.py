"""The handle of one transfer: post, poll, wait, await, cancel."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from trunkline.backend.contract import Status
from trunkline.clock import DEFAULT, Timeout
from trunkline.errors import DeadlineError, TransferStateError
from trunkline.metadata.notification import encode_notification
from trunkline.transfer.combined import CombinedRequest
from trunkline.transfer.failure import describe, explain
from trunkline.transfer.route import Work
from trunkline.transfer.state import RUNNING, TRANSITIONS, Event, State
from trunkline.transfer.telemetry import TransferTelemetry

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator
    from typing import TypeAlias

    from trunkline.backend.contract import BackendPeer, Operation, Request
    from trunkline.errors import TransferError
    from trunkline.transfer.engine import Engine
    from trunkline.transfer.plan import TransferPlan
    from trunkline.transfer.target import Target

    _Ended: TypeAlias = tuple[bytes | None, list[Callable[["TransferHandle"], object]]] | None

FOREVER = float("inf")

TELLING_SIZE = 1 << 16
"""Bytes from which the time of a transfer says what the next one's will be."""

# Python 3.11 takes 0.1 us to look a member up on its Enum (timeit), and a round of a few microseconds needs seven.
_PREPARED: Final = State.PREPARED
_POST: Final = Event.POST
_COMPLETE: Final = Event.COMPLETE
_IN_PROGRESS: Final = Status.IN_PROGRESS
_DONE: Final = Status.DONE


class TransferHandle:
    """One transfer, postable any number of times, one round after the other.

    Made by ``Agent.read``, ``write`` or ``prepare``; the same class serves ``Agent`` and ``AsyncAgent``. Every method
    may be called from any thread. Dropping a handle does not stop its transfer: it runs to its end, and keeps the
    memory of both sides' tensors alive until then. Closing the agent ends it.

    Attributes:
        tag: Whatever the caller gave, to know the transfer again in ``Agent.take_finished``.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_deadline",
        "_ending",
        "_engine",
        "_error",
        "_far_tables",
        "_is_silent",
        "_lock",
        "_near_tables",
        "_notification",
        "_plan",
        "_request",
        "_round",
        "_state",
        "_target",
        "tag",
    )

    def __init__(
        self,
        engine: Engine,
        plan: TransferPlan,
        request: Request,
        target: Target,
        *,
        notify: bytes | None,
        deadline: float | None,
        tag: Any,
    ) -> None:
        self.tag = tag
        self._engine = engine
        self._plan = plan
        self._request = request
        self._target = target
        self._notification = None if notify is None else encode_notification(engine.name, notify)
        self._deadline = deadline
        self._state = _PREPARED
        self._error: TransferError | None = None
        self._ending: Event | None = None
        self._callbacks: list[Callable[[TransferHandle], object]] = []
        self._round = 0
        self._near_tables: object = None  # what memory there was when it was checked last
        self._far_tables: object = None
        self._is_silent = bool(plan.parts) or plan.route.backend not in engine.notifying
        self._lock = threading.Lock()
        request.owner = self

    @property
    def state(self) -> State:
        """Where the transfer stands, as last seen: this property drives nothing."""
        return self._state

    @property
    def ok(self) -> bool:
        """Whether it is DONE: all data has arrived, and the notification was sent."""
        return self._state is State.DONE

    @property
    def error(self) -> TransferError | None:
        """Why it FAILED or was CANCELLED, else None."""
        return self._error

    @property
    def operation(self) -> Operation:
        """READ or WRITE."""
        return self._plan.posting.operation

    @property
    def peer(self) -> str:
        """The name of the agent whose memory is used."""
        return self._target.name

    @property
    def telemetry(self) -> TransferTelemetry:
        """Figures of the last round."""
        return TransferTelemetry(
            bytes=self._plan.total_bytes,
            blocks=self._plan.block_count,
            descriptors=len(self._plan.first_block),
            post_us=self._request.post_ns / 1e3,
            total_us=self._request.total_ns / 1e3,
            backend=self._plan.backend,
            transports=tuple(transport for link in self._data_links() for transport in link.transports),
        )

    def post(self, notify: bytes | None = None) -> TransferHandle:
        """Start it, or start it again once it ended. Returns itself, at once.

        Args:
            notify: Another message for the peer, for this round and those that follow; None keeps the one it has.

        Raises:
            TransferStateError: It is still running.
            PeerGoneError: The peer is gone.
            SegmentGoneError: The peer took memory of it back.
            NotRegisteredError: This agent took memory of it back.
            ClosedError: The agent was closed.
        """
        target = self._target
        with self._lock:
            following = TRANSITIONS.get((self._state, _POST))
            if following is None:
                raise TransferStateError(
                    f"{self!r} is {self._state.name.lower()}: wait for it before posting it again", agent=target.name
                )
            if target.gone is not None or target.is_draining:
                target.check_post()
            self._engine.check_open()
            if self._plan.route.rival is not None:
                self._change_over(self._plan.route.rival)
            if notify is not None:
                self._notification = encode_notification(self._engine.name, notify)
            if self._notification is not None and self._is_silent and not isinstance(self._request, CombinedRequest):
                self._request = self._engine.announcing(self._request, self._plan, target)
                self._request.owner = self
            self._error = None
            self._ending = None
            self._round += 1
            self._state = following
            self._engine.active.add(self)
            try:
                # After it is among the active ones: deregistering takes memory out of the tables first and looks for
                # transfers that use it second, so one of the two always sees the other.
                home, far = self._engine.home.section, target.section
                near_tables, far_tables = home.tables, far.tables
                if near_tables is not self._near_tables or far_tables is not self._far_tables:
                    self._plan.check_tables(home, far, target.name)
                    self._near_tables, self._far_tables = near_tables, far_tables
                status = self._request.post(self._notification)
            except BaseException:
                self._state = _PREPARED
                self._engine.active.discard(self)
                raise
            ended = None if status is _IN_PROGRESS else self._take_end(status)
        if status is not _IN_PROGRESS:
            self._tell(ended)
        elif self._deadline is not None:
            self._engine.schedule(time.monotonic() + self._deadline, self, self._round, Event.EXPIRE)
        return self

    def poll(self) -> State:
        """Drive the transfer once and return where it stands."""
        if self._state.is_quiet:
            return self._state
        if self._request.poll() is not _IN_PROGRESS:
            self.settle()
        return self._state

    def wait(self, timeout: Timeout = DEFAULT) -> TransferHandle:
        """Wait until the transfer ended and return itself if it is DONE.

        Args:
            timeout: Seconds; None waits for ever; the agent's default if not given.

        Raises:
            DeadlineError: ``timeout`` ran out. The transfer goes on; wait again, or cancel it.
            TransferError: It failed, or was cancelled, or passed its own deadline.
            TransferStateError: It was never posted.
        """
        state = self._state
        if state in RUNNING:
            seconds = self._engine.timeout if timeout is DEFAULT else timeout
            until = FOREVER if seconds is None else time.monotonic() + seconds
            while self._state in RUNNING:  # more than once only where another thread is just posting it again
                if self._request.wait(until) is _IN_PROGRESS:
                    raise DeadlineError(
                        f"{self!r} is still running after {seconds:g} s; it was not cancelled",
                        agent=self._target.name,
                        timeout=seconds,
                    )
                self.settle()
        elif state is _PREPARED:
            raise TransferStateError(f"{self!r} was not posted yet", agent=self._target.name)
        if self._error is not None:
            raise self._error
        return self

    def cancel(self) -> None:
        """Post no more of it and let what is under way drain; returns at once.

        The transfer is CANCELLED once it is quiet (or DONE, if all of it had been posted and arrived). What the
        target's memory then holds is undefined. If it does not drain within the agent's grace, the connection to the
        peer is closed by force, and with it the peer's other transfers. No effect on a transfer that is not running.
        """
        self.end(Event.CANCEL)

    def add_done_callback(self, callback: Callable[[TransferHandle], object]) -> None:
        """Have ``callback(handle)`` called once when the running round ends, or now if it has.

        It runs on whichever thread sees the end, often the progress thread: it must be brief, and must not wait.
        An exception it raises is logged.
        """
        with self._lock:
            if not self._state.is_quiet:
                self._callbacks.append(callback)
                return
        self._engine.call_back(callback, self)

    def __await__(self) -> Generator[Any, None, TransferHandle]:
        """Wait in an event loop; results and errors are those of :meth:`wait` without a timeout."""
        import asyncio

        if self._state is _PREPARED:
            raise TransferStateError(f"{self!r} was not posted yet", agent=self._target.name)
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def wake(_: TransferHandle) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(_resolve, ended)

        self.add_done_callback(wake)
        yield from ended.__await__()
        if self._error is not None:
            raise self._error
        return self

    def end(self, event: Event) -> None:
        """Take CANCEL or EXPIRE: stop posting; force the connection if it does not drain (for the engine)."""
        with self._lock:
            following = TRANSITIONS.get((self._state, event))
            if following is None:
                return
            self._state = following
            self._ending = event
            self._request.stop()  # under the lock, so that it never stops a later round
            stopped = self._round
        if self._request.poll() is not _IN_PROGRESS:
            self.settle()
        else:
            self._engine.schedule(time.monotonic() + self._engine.grace, self, stopped, None)

    def abort(self, reason: str) -> None:
        """Make it quiet now by closing its connection by force (for the engine)."""
        for _ in range(2):  # the data may end meanwhile, and then its notification is on its way
            # If it is quiet, another one's abort ended it: leave the next connection alone.
            if self._state.is_quiet or self._request.poll() is not _IN_PROGRESS:
                break
            for link in self._links_in_use():
                link.abort(reason)
        self.settle()

    def uses_local_slots(self, backend: str, slots: Any) -> bool:
        """Whether the running transfer touches any of these registered segments (for the engine)."""
        return not self._state.is_quiet and self._plan.uses(backend, slots)

    def settle(self) -> None:
        """Take the request's end, once, whoever saw it (for the engine)."""
        with self._lock:
            if self._state not in RUNNING:
                return
            status = self._request.poll()
            if status is _IN_PROGRESS:
                return
            ended = self._take_end(status)
        self._tell(ended)

    def _data_links(self) -> list[BackendPeer]:
        links = self._target.links
        return [links[part.route.backend] for part in self._plan.parts or (self._plan,) if not part.route.is_own]

    def _links_in_use(self) -> list[BackendPeer]:
        """Return the links of what is under way now: the data, or then its notification."""
        request = self._request
        if isinstance(request, CombinedRequest) and request.is_announcing:
            carrier = self._engine.carrier(self._target)
            return [] if carrier is None else [carrier[1]]
        return self._data_links()

    def _take_end(self, status: Status) -> _Ended:
        """Book the end of the round, under the lock; return who is to be told of it once that is free."""
        event = _COMPLETE if status is _DONE else Event.STOP if self._ending is Event.CANCEL else Event.FAIL
        following = TRANSITIONS[self._state, event]
        if event is not _COMPLETE:
            expired = self._deadline if self._ending is Event.EXPIRE else None
            self._error = explain(self._plan, self._request, self._target, following, expired=expired)
        elif self._plan.total_bytes >= TELLING_SIZE and (total_ns := self._request.total_ns):
            self._target.rates[self._plan.backend] = 1e9 * self._plan.total_bytes / total_ns
        self._state = following  # last: ``wait`` and ``error`` are read without the lock
        self._engine.ended(self)  # under the lock: once it is free, another thread may post the next round
        if self._error is None and not self._callbacks:
            return None
        callbacks, self._callbacks = self._callbacks, []
        return self._notification if self._error is not None else None, callbacks

    def _tell(self, ended: _Ended) -> None:
        if ended is not None:
            notice, callbacks = ended
            if notice is not None:
                self._engine.tell_failure(self, notice)
            for callback in callbacks:
                self._engine.call_back(callback, self)

    def _change_over(self, rival: str) -> None:
        """Take the quicker backend that could not be used when this was planned, if it can be now."""
        if self._target.links[rival].obstacle is None:
            route = self._plan.route._replace(backend=rival, rival=None)
            self._plan = replace(self._plan, route=route)
            self._request = self._engine.bind(self._plan, self._target)
            self._request.owner = self
            self._is_silent = rival not in self._engine.notifying

    def is_running(self, round_number: int) -> bool:
        """Whether that round is still under way (for the engine)."""
        return self._round == round_number and not self._state.is_quiet

    @property
    def work(self) -> Work:
        """What it moves, for :meth:`Agent.explain`."""
        return Work(*self._plan.kinds, self._plan.block_count, self._plan.total_bytes)

    @property
    def target(self) -> Target:
        """The peer (for the engine)."""
        return self._target

    @property
    def backends(self) -> tuple[str, ...]:
        """The names of the backends that move it."""
        return self._plan.backends

    def __repr__(self) -> str:
        return describe(self._plan, self._target.name, self._state)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
