"""Waiting until enough agents are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.clock import SYSTEM_CLOCK, Clock, Deadline
from trunkline.directory.event import (
    DirectoryEvent,
    PeerJoined,
    PeerLeft,
    PeerSuspect,
    PeerUpdated,
    StoreBack,
    StoreLost,
    Synced,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.directory.view import AgentListing
    from trunkline.directory.watch import DirectoryWatch

LOOK_TIMEOUT = 3.0
"""Seconds that the store has to say who is there, if nobody is waited for."""


class Gathering:
    """Who is there, from a watch's events. One thread.

    Attributes:
        is_synced: Whether everybody who was there at the start is known.
        outage: Why the store can't be reached at present, or None.
    """

    def __init__(self) -> None:
        self.is_synced = False
        self.outage: str | None = None
        self._agents: dict[str, AgentListing] = {}

    @property
    def present(self) -> list[AgentListing]:
        """Those that something new may be started with, by name."""
        return [agent for agent in self._sorted() if is_usable(agent)]

    @property
    def unusable(self) -> list[AgentListing]:
        """Those that are there and don't count: they drain, or their lease ran out."""
        return [agent for agent in self._sorted() if not is_usable(agent)]

    def apply(self, event: DirectoryEvent) -> None:
        """Take an event in."""
        if isinstance(event, PeerLeft):
            self._agents.pop(event.name, None)
        elif isinstance(event, (PeerJoined, PeerUpdated, PeerSuspect)):
            self._agents[event.name] = event.agent
        elif isinstance(event, Synced):
            self.is_synced = True
        elif isinstance(event, StoreLost):
            self.outage = event.reason
        elif isinstance(event, StoreBack):
            self.outage = None

    def _sorted(self) -> list[AgentListing]:
        return [self._agents[name] for name in sorted(self._agents)]


def is_usable(agent: AgentListing) -> bool:
    """Return whether something new may be started with an agent."""
    return agent.state == "ready" and not agent.is_suspect


def wait_gathered(
    watch: DirectoryWatch,
    count: int,
    timeout: float | None,
    *,
    clock: Clock = SYSTEM_CLOCK,
    on_change: Callable[[Gathering], object],
) -> Gathering:
    """Wait until at least ``count`` agents are there, woken by the watch alone; return who is, enough or not.

    Nobody counts before everybody who was there at the start is known, nor while news of them waits to be read.

    Args:
        watch: Tells who is there; just made.
        count: How many are enough.
        timeout: Seconds; None waits for ever; 0 asks for those who are there now, which the store has three seconds to
            say.
        clock: Measures them.
        on_change: Called with how things are whenever there is no more news to read.

    Raises:
        StoreError: The store refuses to be watched.
    """
    gathering = Gathering()
    deadline = Deadline(timeout, clock)
    first_look = Deadline(LOOK_TIMEOUT, clock) if timeout == 0 else deadline
    while True:
        event = watch.next(0)
        if event is None:
            on_change(gathering)
            if gathering.is_synced and gathering.outage is None and len(gathering.present) >= count:
                return gathering
            event = watch.next((deadline if gathering.is_synced else first_look).remaining())
        if event is None:
            return gathering
        gathering.apply(event)
