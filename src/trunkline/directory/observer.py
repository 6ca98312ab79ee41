"""The one observer of a namespace in a process: it watches the store and tells everybody here who wants to know."""

from __future__ import annotations

import logging
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.directory.listening import Listeners, Listening, call_safely
from trunkline.directory.roster import SYNCED, Roster
from trunkline.directory.upkeep import Upkeep
from trunkline.directory.watch import DirectoryWatch
from trunkline.errors import ClosedError, TrunklineError
from trunkline.metadata.key import places, presence_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trunkline.directory.event import DirectoryEvent
    from trunkline.directory.listening import Owner
    from trunkline.directory.view import AgentListing, DirectoryView
    from trunkline.store.contract import Store, Watch, WatchEvent

_log = logging.getLogger(__name__)


class Subscription:
    """Somebody who is told of every event, on the observer's thread: it must be brief and must not wait.

    Args:
        tell: Called with events.
        fail: Called if there will be no more.
        sources: What it relies on: what each of these watches selects.
    """

    def __init__(
        self, tell: Callable[[DirectoryEvent], None], fail: Callable[[TrunklineError], None], sources: tuple[str, ...]
    ) -> None:
        self.tell = tell
        self.fail = fail
        self.sources = sources
        self.is_synced = False


class _Bell(threading.Event):
    """Rung by one watch: notes that, so that the others need not be looked at, and wakes the observer.

    Args:
        rung: Bells of watches that may have something to take.
        wake: What the observer waits for.
    """

    def __init__(self, rung: deque[_Bell], wake: threading.Event) -> None:
        super().__init__()
        self._rung = rung
        self._wake = wake
        self.take: Callable[[], bool] = lambda: False
        """Takes an event of the watch; returns whether there was one."""

    def begin(self, take: Callable[[], bool]) -> None:
        """Take events this way from now on; there may be some already."""
        self.take = take
        self.set()

    def set(self) -> None:
        self._rung.append(self)
        self._wake.set()


class Observer:
    """Watches the records of a namespace with one watch, whatever the number of agents and watches in this process.

    Its thread starts with the first use and ends with :meth:`close`. Any thread may call any method. Use
    :func:`open_observer` to share one.

    Args:
        store: Where; closed with the observer.
        namespace: The namespace.
        ttl: Seconds given to agents whose records don't say their TTL.
        clock: Measures time.
    """

    def __init__(self, store: Store, namespace: str, *, ttl: float = 30.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store = store
        self.upkeep = Upkeep(clock)
        self._namespace = namespace
        self._clock = clock
        self._lock = threading.RLock()  # guards all below; held while subscribers are told
        self._wake = threading.Event()
        self._roster = Roster(namespace, ttl=ttl)
        self._records = tuple(presence_prefix(place) for place in places(namespace))
        self._everything = f"{places(namespace)[0]}/"
        self._watches: dict[str, Watch] = {}
        self._users: dict[str, int] = {}  # of the watches beside those of records
        self._listeners = Listeners()
        self._rung: deque[_Bell] = deque()  # of watches that may have something to take
        self._subscriptions: list[Subscription] = []
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def watch(
        self,
        pattern: str,
        attributes: Mapping[str, str],
        *,
        include_nixl: bool = False,
        on_close: Callable[[], None],
    ) -> DirectoryWatch:
        """Return a new watch; see :class:`DirectoryWatch`. ``on_close`` is called once it was closed."""

        def close(_: DirectoryWatch) -> None:
            self.unsubscribe(subscription, include_nixl=include_nixl)
            on_close()

        watch = DirectoryWatch(pattern, attributes, include_nixl=include_nixl, clock=self._clock, on_close=close)
        subscription = self.subscribe(watch.offer, watch.fail, include_nixl=include_nixl)
        return watch

    def subscribe(
        self,
        tell: Callable[[DirectoryEvent], None],
        fail: Callable[[TrunklineError], None],
        *,
        include_nixl: bool = False,
    ) -> Subscription:
        """Have ``tell`` called with what is known, then ``Synced``, then with what happens; ``fail`` if it ends.

        Raises:
            ClosedError: The observer was closed.
        """
        sources = (*self._records, self._everything) if include_nixl else self._records
        subscription = Subscription(tell, fail, sources)
        with self._lock:
            self._start()
            if include_nixl:
                self._open_source(self._everything)
            for event in self._roster.events_so_far():
                tell(event)
            if self._roster.has_heard(sources):
                subscription.is_synced = True
                tell(SYNCED)
            outage = self._roster.outage()
            if outage is not None:
                tell(outage)
            self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription, *, include_nixl: bool = False) -> None:
        """Tell it no more. Idempotent."""
        with self._lock:
            if subscription not in self._subscriptions:
                return
            self._subscriptions.remove(subscription)
            if include_nixl:
                self._close_source(self._everything)

    def follow(self, prefix: str) -> None:
        """Watch the keys of one of NIXL's own agents; calls are counted.

        Args:
            prefix: What all its keys start with.
        """
        with self._lock:
            self._start()
            self._open_source(prefix)

    def unfollow(self, prefix: str) -> None:
        """Undo one :meth:`follow`."""
        with self._lock:
            self._close_source(prefix)

    def listen(self, prefix: str, record: str, tell: Owner, *, after: int) -> Listening:
        """Have an agent of this process told of everything that happens to its keys, until :meth:`stop_listening`.

        Args:
            prefix: What its keys start with, but for the record.
            record: The key of its presence record.
            after: The revision from which on the first of these matters.
            tell: Called with one of these two, and an event of the keys it selects; brief, must not wait.
        """
        with self._lock:
            self._start()
            bell = _Bell(self._rung, self._wake)
            watch = self.store.watch(prefix, prefix=True, after=after, wake=bell)
            listening = Listening(prefix, record, tell, watch)
            self._listeners.add(listening)
            bell.begin(partial(self._take_for_owner, listening))
        return listening

    def stop_listening(self, listening: Listening) -> None:
        """Undo one :meth:`listen`. Idempotent."""
        with self._lock:
            self._listeners.drop(listening)
        listening.watch.close()

    def tell(self, event: DirectoryEvent) -> None:
        """Tell every subscriber something that the store did not say."""
        with self._lock:
            self._spread([event])

    def excuse(self) -> None:
        """Note that the store was away: an agent of this process lost its lease."""
        with self._lock:
            self._roster.excuse(self._clock.monotonic())

    def view(self) -> DirectoryView:
        """Return who is there, as last heard; starts to watch if nobody did."""
        with self._lock:
            self._start()
            return self._roster.view(self._records, self._clock.monotonic())

    def latest(self, name: str) -> tuple[AgentListing | None, int]:
        """Return one agent, as last heard, and the revision up to which its record is known."""
        with self._lock:
            return self._roster.listing(name), self._roster.revision_of(name)

    def close(self) -> None:
        """End the thread, the watches and the store. Idempotent."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            watches = [*self._watches.values(), *self._listeners.watches()]
            subscriptions, self._subscriptions = self._subscriptions, []
            thread = self._thread
        self._wake.set()
        self.upkeep.close()
        for watch in watches:
            watch.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        error = ClosedError(f"the directory {self._namespace} in {self.store.url} is not watched any more")
        for subscription in subscriptions:
            subscription.fail(error)
        self.store.close()

    def _start(self) -> None:
        if self._is_closed:
            raise ClosedError(f"the observer of {self._namespace} in {self.store.url} was closed")
        for prefix in self._records:
            self._open_watch(prefix)
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="trunkline-directory", daemon=True)
            thread.start()
            self._thread = thread

    def _open_source(self, prefix: str) -> None:
        self._users[prefix] = self._users.get(prefix, 0) + 1
        self._open_watch(prefix)

    def _open_watch(self, prefix: str) -> None:
        """Watch, unless that is done already; also anew what the store refused, for it may not any more."""
        if prefix not in self._watches:
            bell = _Bell(self._rung, self._wake)
            watch = self._watches[prefix] = self.store.watch(prefix, prefix=True, wake=bell)
            bell.begin(partial(self._take_for_all, prefix, watch))

    def _close_source(self, prefix: str) -> None:
        users = self._users.pop(prefix, 0)
        if users > 1:
            self._users[prefix] = users - 1
            return
        self._close_watch(prefix)

    def _close_watch(self, prefix: str) -> bool:
        watch = self._watches.pop(prefix, None)
        if watch is None:
            return False
        watch.close()
        self._spread(self._roster.forget(prefix, self._watches, self._clock.monotonic()))
        return True

    def _run(self) -> None:
        while not self._is_closed:
            self._wake.clear()
            self._take_rung()
            with self._lock:
                now = self._clock.monotonic()
                self._spread(self._roster.tick(now))
                due = self._roster.next_due
            if not self._is_closed:
                self._clock.wait(self._wake, None if due is None else max(0.0, due - now))

    def _take_rung(self) -> None:
        """Take one event from each watch that rang, until none has any."""
        while self._rung:
            # Each once, however often it rang; what rings from here on is looked at in the next turn.
            for bell in dict.fromkeys([self._rung.popleft() for _ in range(len(self._rung))]):
                if bell.take():
                    self._rung.append(bell)

    def _take_for_all(self, prefix: str, watch: Watch) -> bool:
        """Take an event of a watch that everybody relies on; return whether there was one."""
        event = self._take(prefix, watch)
        if event is None:
            return False
        with self._lock:
            if self._watches.get(prefix) is watch:
                self._listeners.tell_of_records(prefix, event)
                self._spread(self._roster.apply(prefix, event, self._clock.monotonic()))
                self._sync()
        return True

    def _take_for_owner(self, listening: Listening) -> bool:
        """Take an event of an own agent's keys; return whether there was one."""
        event = self._take(listening.prefix, listening.watch)
        if event is None:
            return False
        with self._lock:
            self._listeners.tell(listening, event)
        return True

    def _take(self, prefix: str, watch: Watch) -> WatchEvent | None:
        """Return a watch's next event, if there is one."""
        try:
            return watch.next(0)
        except ClosedError:
            pass
        except TrunklineError as error:
            self._fail(prefix, watch, error)
        return None

    def _spread(self, events: list[DirectoryEvent]) -> None:
        for event in events:
            for subscription in self._subscriptions[:]:
                call_safely(subscription.tell, event)

    def _sync(self) -> None:
        for subscription in self._subscriptions[:]:
            if not subscription.is_synced and self._roster.has_heard(subscription.sources):
                subscription.is_synced = True
                call_safely(subscription.tell, SYNCED)

    def _fail(self, prefix: str, watch: Watch, error: TrunklineError) -> None:
        """The store refuses to be watched: whoever relies on it is told."""
        _log.error("can't watch %s in %s: %s", prefix, self.store.url, error)
        with self._lock:
            self._listeners.drop_watch(watch)
            if self._watches.get(prefix) is watch and self._close_watch(prefix):
                for subscription in self._subscriptions[:]:
                    if prefix in subscription.sources:
                        call_safely(subscription.fail, error)
        watch.close()
