"""A watch of the directory, as its reader sees it: filtered events, from a bounded queue."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from trunkline.clock import Clock, Deadline
from trunkline.directory.event import (
    DirectoryEvent,
    LeaveReason,
    NameConflict,
    PeerEvent,
    PeerJoined,
    PeerLeft,
    PeerSuspect,
    PeerUpdated,
    StoreBack,
    StoreLost,
    Synced,
)
from trunkline.directory.roster import updates
from trunkline.errors import ClosedError, ConfigurationError, ForkedError, TrunklineError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from types import TracebackType

    from trunkline.directory.view import AgentListing

QUEUE_LIMIT = 65_536
"""How many events wait for a reader. One that is further behind gets the difference to what it took instead."""


class DirectoryWatch:
    """Tells who is there, who comes, changes and goes: iterate over it, with ``for`` or ``async for``.

    First every agent that is there (``PeerJoined``), then ``Synced``, then what happens. Made by ``Directory.watch``
    and ``Agent.watch``; a context manager, plain and async. Any thread may call any method; each event goes to
    one reader.

    Args:
        pattern: Glob pattern of names.
        attributes: Attributes an agent must have, with these values. One that ceases to match has left, as
            ``UNMATCHED``.
        include_nixl: Whether to tell of NIXL's own agents.
        except_name: Name of an agent not to tell of.
        clock: Measures time-outs.
        on_close: Called once, when the watch is closed.
        queue_limit: How many events wait for a reader.

    Attributes:
        include_nixl: Whether it tells of NIXL's own agents.
    """

    def __init__(
        self,
        pattern: str,
        attributes: Mapping[str, str],
        *,
        include_nixl: bool = False,
        except_name: str | None = None,
        clock: Clock,
        on_close: Callable[[DirectoryWatch], None],
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        for key, value in attributes.items():
            if not isinstance(value, str):
                raise ConfigurationError(f"attribute {key}={value!r}: attributes are strings", attribute=key)
        self._pattern = pattern
        self._attributes = dict(attributes)
        self.include_nixl = include_nixl
        self._except_name = except_name
        self._clock = clock
        self._on_close = on_close
        self._limit = queue_limit
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._listeners: list[Callable[[], None]] = []
        self._queue: deque[DirectoryEvent] = deque()
        self._offered: dict[str, AgentListing] = {}  # who is there by all that was offered
        self._taken: dict[str, AgentListing] = {}  # who is there by what the reader took
        self._departures: dict[str, PeerLeft] | None = None  # since the queue overflowed, of those who were taken
        self._kept: dict[object, DirectoryEvent] = {}  # other events since then
        self._outage: StoreLost | None = None
        self._taken_outage: StoreLost | None = None  # as the reader took it
        self._error: TrunklineError | None = None
        self._is_closed = False
        self._pid = os.getpid()

    # -- for readers -------------------------------------------------------------------------------------------

    def next(self, timeout: float | None = None) -> DirectoryEvent | None:
        """Wait for the next event; None when ``timeout`` seconds passed (None waits for ever).

        Raises:
            ClosedError: The watch, or what it watches with, was closed.
            StoreError: The store refuses to be watched; the watch has ended.
            ForkedError: This is a forked child: nobody feeds the watch here.
        """
        deadline = Deadline(timeout, self._clock)
        while True:
            event = self._take()
            if event is not None:
                return event
            if deadline.has_passed:
                return None
            self._clock.wait(self._ready, deadline.remaining())

    async def next_async(self, timeout: float | None = None) -> DirectoryEvent | None:
        """As :meth:`next`, in an event loop; no thread waits."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(woken.set)

        self._check_process()
        with self._lock:
            self._listeners.append(wake)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    event = self._take()
                    if event is not None:
                        return event
                    await woken.wait()
                    woken.clear()
        except TimeoutError:
            return None
        finally:
            with self._lock:
                self._listeners.remove(wake)

    def __iter__(self) -> Iterator[DirectoryEvent]:
        """Iterate until closed."""
        with contextlib.suppress(ClosedError):
            while True:
                event = self.next()
                if event is not None:
                    yield event

    async def __aiter__(self) -> AsyncIterator[DirectoryEvent]:
        """Iterate until closed."""
        with contextlib.suppress(ClosedError):
            while True:
                event = await self.next_async()
                if event is not None:
                    yield event

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        """Stop. Idempotent; wakes whoever waits for an event. Does nothing in a forked child."""
        if os.getpid() != self._pid:  # the lock may be held there for ever
            return
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._queue.clear()
            self._wake()
        self._on_close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        chosen = "".join(f" {key}={value}" for key, value in self._attributes.items())
        return f"<DirectoryWatch {self._pattern!r}{chosen}, {len(self._offered)} agents>"

    # -- for whoever feeds it ----------------------------------------------------------------------------------

    def offer(self, event: DirectoryEvent) -> None:
        """Take an event in, if it is one that this watch tells. Never waits."""
        with self._lock:
            if self._is_closed:
                return
            if isinstance(event, (PeerJoined, PeerUpdated, PeerSuspect, PeerLeft)):
                told = self._filter(event)
                if told is None:
                    return
                event = told
                if isinstance(event, PeerLeft):
                    self._offered.pop(event.name, None)
                else:
                    self._offered[event.name] = event.agent
            elif isinstance(event, (StoreLost, StoreBack)):
                self._outage = event if isinstance(event, StoreLost) else None
            if self._departures is None and len(self._queue) >= self._limit:
                self._departures = {}
                for waiting in self._queue:
                    self._set_aside(waiting, self._departures)
                self._queue.clear()
            if self._departures is None:
                self._queue.append(event)
            else:
                self._set_aside(event, self._departures)
            self._wake()

    def fail(self, error: TrunklineError) -> None:
        """End the watch with an error, which readers get after the events before it."""
        with self._lock:
            self._error = error
            self._wake()

    def _filter(self, event: PeerEvent) -> PeerEvent | None:
        """Return what to tell of an event; None for nothing."""
        agent = event.agent
        if agent.name == self._except_name or (agent.is_nixl and not self.include_nixl):
            return None
        known = agent.name in self._offered
        if isinstance(event, PeerLeft):
            return event if known else None
        if not agent.matches(self._pattern, self._attributes):
            return PeerLeft(agent, LeaveReason.UNMATCHED) if known else None
        if not known and not isinstance(event, PeerJoined):
            return PeerJoined(agent)
        return event

    def _set_aside(self, event: DirectoryEvent, departures: dict[str, PeerLeft]) -> None:
        """Keep of an event that does not fit what the difference will not show."""
        if isinstance(event, PeerLeft):
            if event.name in self._taken:
                departures[event.name] = event
        elif isinstance(event, Synced):
            self._kept[Synced] = event
        elif isinstance(event, NameConflict):
            self._kept[event.key, event.is_lost] = event

    def _take(self) -> DirectoryEvent | None:
        self._check_process()
        with self._lock:
            if self._is_closed:
                raise ClosedError("the watch is closed")
            if self._departures is not None and not self._queue:
                self._catch_up(self._departures)
            if not self._queue:
                if self._error is not None:
                    raise self._error
                self._ready.clear()
                return None
            event = self._queue.popleft()
            if isinstance(event, PeerLeft):
                self._taken.pop(event.name, None)
            elif isinstance(event, (PeerJoined, PeerUpdated, PeerSuspect)):
                self._taken[event.name] = event.agent
            elif isinstance(event, (StoreLost, StoreBack)):
                self._taken_outage = event if isinstance(event, StoreLost) else None
            return event

    def _catch_up(self, departures: dict[str, PeerLeft]) -> None:
        """Queue the difference between what the reader took and what was offered since."""
        self._departures = None
        if (self._taken_outage is None) != (self._outage is None):
            self._queue.append(self._outage or StoreBack())
        for name, before in self._taken.items():
            now = self._offered.get(name)
            if now is None:
                self._queue.append(departures[name])
            elif now.incarnation != before.incarnation:
                self._queue.extend((PeerLeft(before, LeaveReason.SUPERSEDED), PeerJoined(now)))
            elif now.is_suspect != before.is_suspect:
                self._queue.append(PeerSuspect(now) if now.is_suspect else PeerJoined(now))
            else:
                self._queue.extend(updates(before, now))
        for name, now in self._offered.items():
            if name not in self._taken:
                self._queue.append(PeerJoined(replace(now, is_suspect=False)))
                if now.is_suspect:
                    self._queue.append(PeerSuspect(now))
        self._queue.extend(self._kept.values())
        self._kept.clear()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedError(f"{self!r} belongs to the parent process: watch anew in this one")

    def _wake(self) -> None:
        self._ready.set()
        for listener in self._listeners:
            listener()
