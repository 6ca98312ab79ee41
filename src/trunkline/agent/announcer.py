"""Telling an agent's watches who is there, in an order that holds for each agent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trunkline.directory.event import (
    DirectoryEvent,
    LeaveReason,
    PeerEvent,
    PeerJoined,
    PeerLeft,
    PeerSuspect,
    PeerUpdated,
    StoreBack,
    StoreLost,
    Synced,
)
from trunkline.directory.roster import SYNCED
from trunkline.directory.view import DirectoryView
from trunkline.directory.watch import DirectoryWatch
from trunkline.errors import ClosedError, TrunklineError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from trunkline.clock import Clock
    from trunkline.directory.observer import Observer, Subscription
    from trunkline.directory.view import AgentListing


class Announcer:
    """What an agent's watches are told, and have been: that is what a new watch begins with.

    Any thread may call any method.

    Args:
        name: The agent's name, of which it tells nothing.
        observer: Tells when NIXL's own agents have been heard.
        lock: Held while watches are told; whoever has to keep an order holds it longer.
        clock: Measures the watches' time-outs.
        open_watch: Makes the watches.
    """

    def __init__(
        self,
        name: str,
        observer: Observer,
        lock: threading.RLock,
        clock: Clock,
        *,
        open_watch: Callable[..., DirectoryWatch] = DirectoryWatch,
    ) -> None:
        self._name = name
        self._observer = observer
        self._lock = lock
        self._clock = clock
        self._open_watch = open_watch
        self._listings: dict[str, AgentListing] = {}  # as told
        self._unreachable: dict[str, str] = {}  # incarnations whose process is known to have ended
        self._watches: list[DirectoryWatch] = []
        self._is_synced = False
        self._outage: StoreLost | None = None
        self._failure: TrunklineError | None = None
        self._is_closed = False

    def watch(self, pattern: str, attributes: Mapping[str, str], *, include_nixl: bool) -> DirectoryWatch:
        """Return a new watch; see Agent.watch."""

        def close(closed: DirectoryWatch) -> None:
            with self._lock:
                if closed in self._watches:
                    self._watches.remove(closed)
            if subscription is not None:
                observer.unsubscribe(subscription, include_nixl=True)

        def sync(event: DirectoryEvent) -> None:
            if isinstance(event, Synced):
                watch.offer(event)

        observer = self._observer
        subscription: Subscription | None = None
        watch = self._open_watch(
            pattern,
            attributes,
            include_nixl=include_nixl,
            except_name=self._name,
            clock=self._clock,
            on_close=close,
        )
        with self._lock:
            if self._is_closed:
                raise ClosedError(f"agent {self._name!r} is closed: make a new Agent", agent=self._name)
            for listing in self._listings.values():
                watch.offer(PeerJoined(replace(listing, is_suspect=False)))
                if listing.is_suspect:
                    watch.offer(PeerSuspect(listing))
            if self._is_synced and not include_nixl:
                watch.offer(SYNCED)
            if self._outage is not None:
                watch.offer(self._outage)
            if self._failure is not None:
                watch.fail(self._failure)
            self._watches.append(watch)
        if include_nixl:
            try:
                subscription = observer.subscribe(sync, watch.fail, include_nixl=True)
            except BaseException:
                watch.close()
                raise
            if watch.is_closed:  # by the end of the agent, before there was a subscription to end
                observer.unsubscribe(subscription, include_nixl=True)
        return watch

    def view(self) -> DirectoryView:
        """Return who is there; see Agent.peers."""
        seen = self._observer.view()
        with self._lock:
            listings = {name: listing for name, listing in self._listings.items() if name != self._name}
            return DirectoryView(listings, age=seen.age, is_synced=self._is_synced)

    def tell(self, event: DirectoryEvent) -> None:
        """Tell watches, in an order that holds for each agent whichever thread it is that tells."""
        with self._lock:
            if isinstance(event, (PeerJoined, PeerUpdated, PeerSuspect, PeerLeft)):
                self._tell_peer(event)
                return
            if isinstance(event, Synced):
                self._is_synced = True
            elif isinstance(event, (StoreLost, StoreBack)):
                self._outage = event if isinstance(event, StoreLost) else None
            for watch in self._watches:
                if not (isinstance(event, Synced) and watch.include_nixl):  # those have to hear more before
                    watch.offer(event)

    def tell_unreachable(self, incarnation: str, name: str) -> None:
        """An agent's process is known to be gone: tell so, and nothing that the store still says of it."""
        with self._lock:
            listing = self._listings.get(name)
            if listing is not None and listing.incarnation == incarnation:  # else nobody was told that it was there
                self._tell_peer(PeerLeft(listing, LeaveReason.UNREACHABLE))
            self._unreachable[name] = incarnation

    def close(self) -> None:
        """End the watches. Idempotent."""
        with self._lock:
            self._is_closed = True
            watches, self._watches = self._watches, []
        for watch in watches:
            watch.close()

    def fail(self, error: TrunklineError) -> None:
        """There will be no more news: end the watches with this error."""
        with self._lock:
            self._failure = error
            for watch in self._watches:
                watch.fail(error)

    def _tell_peer(self, event: PeerEvent) -> None:
        agent, known = event.agent, self._listings.get(event.name)
        if self._unreachable.get(agent.name) == agent.incarnation:
            if isinstance(event, PeerLeft):
                del self._unreachable[agent.name]
            return
        events: list[PeerEvent] = [event]
        if isinstance(event, PeerLeft):
            if known is None or known.incarnation != agent.incarnation:
                return  # it was told already
            del self._listings[agent.name]
        else:
            if known is not None and known.incarnation != agent.incarnation:  # a suspect that the store had given up
                events.insert(0, PeerLeft(known, LeaveReason.SUPERSEDED))
            elif known is not None and known.is_suspect and isinstance(event, PeerSuspect):
                events.clear()
            self._listings[agent.name] = agent
        for each in events:
            for watch in self._watches:
                watch.offer(each)
