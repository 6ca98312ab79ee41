"""The one observer of a namespace in a process: it watches the store and tells everybody here who wants to know."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.directory.roster import SYNCED, Roster
from trunkline.directory.upkeep import Upkeep
from trunkline.directory.watch import DirectoryWatch
from trunkline.errors import ClosedError, TrunklineError
from trunkline.metadata.key import places, presence_prefix
from trunkline.store.contract import Changed, Interrupted, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from trunkline.directory.event import DirectoryEvent
    from trunkline.directory.view import AgentListing, DirectoryView
    from trunkline.store.contract import Store, Watch, WatchEvent

_log = logging.getLogger(__name__)


Owner: TypeAlias = "Callable[[str, WatchEvent], None]"
"""Who is told what happens to keys of its own, and which keys an event selects."""


class Subscription:
    """Somebody who is told of every event, on the observer's thread: it must be brief and must not wait."""

    def __init__(self, tell: Callable[[DirectoryEvent], None], fail: Callable[[TrunklineError], None]) -> None:
        self.tell = tell
        self.fail = fail
        self.awaits: tuple[str, ...] = ()  # sources that must be heard before it is synced


class _Bell(threading.Event):
    """Rung by one watch: notes which it is, so that the others need not be looked at, and wakes the observer.

    Args:
        prefix: What the watch selects.
        rung: Prefixes of watches that may have something to take.
        wake: What the observer waits for.
    """

    def __init__(self, prefix: str, rung: deque[str], wake: threading.Event) -> None:
        super().__init__()
        self._prefix = prefix
        self._rung = rung
        self._wake = wake

    def set(self) -> None:
        self._rung.append(self._prefix)
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
        self._owners: dict[str, Owner] = {}  # by the prefix of their keys
        self._owners_by_record: dict[str, Owner] = {}
        self._own_watches: dict[str, Watch] = {}
        self._rung: deque[str] = deque()  # prefixes of watches that may have something to take
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
        subscription = Subscription(tell, fail)
        with self._lock:
            self._start()
            sources = self._records
            if include_nixl:
                self._open_source(self._everything)
                sources = (*sources, self._everything)
            for event in self._roster.events_so_far():
                tell(event)
            if self._roster.has_heard(sources):
                tell(SYNCED)
            else:
                subscription.awaits = sources
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

    def listen(self, prefix: str, record: str, after: int, tell: Owner) -> None:
        """Have an agent of this process told of everything that happens to its keys.

        Args:
            prefix: What its keys start with, but for the record.
            record: The key of its presence record.
            after: The revision from which on the first of these matters.
            tell: Called with one of these two, and an event of the keys it selects; brief, must not wait.
        """
        with self._lock:
            self._start()
            self._owners[prefix] = self._owners_by_record[record] = tell
            self._open_watch(self._own_watches, prefix, after=after)

    def stop_listening(self, prefix: str, record: str) -> None:
        """Undo :meth:`listen`. Idempotent."""
        with self._lock:
            self._owners.pop(prefix, None)
            self._owners_by_record.pop(record, None)
            watch = self._own_watches.pop(prefix, None)
        if watch is not None:
            watch.close()

    def tell(self, event: DirectoryEvent) -> None:
        """Tell every subscriber something that the store did not say."""
        with self._lock:
            for subscription in self._subscriptions:
                subscription.tell(event)

    def excuse(self) -> None:
        """Note that the store was away: an agent of this process lost its lease."""
        with self._lock:
            self._roster.excuse(self._clock.monotonic())

    def view(self) -> DirectoryView:
        """Return who is there, as last heard; starts to watch if nobody did."""
        with self._lock:
            self._start()
            return self._roster.view(self._records, self._clock.monotonic())

    def listing(self, name: str) -> AgentListing | None:
        """Return one agent, as last heard."""
        with self._lock:
            return self._roster.listing(name)

    def close(self) -> None:
        """End the thread, the watches and the store. Idempotent."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            watches = [*self._watches.values(), *self._own_watches.values()]
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
        if self._thread is None:
            for prefix in self._records:
                self._open_watch(self._watches, prefix)
            self._thread = threading.Thread(target=self._run, name="trunkline-directory", daemon=True)
            self._thread.start()

    def _open_watch(self, watches: dict[str, Watch], prefix: str, *, after: int | None = None) -> None:
        bell = _Bell(prefix, self._rung, self._wake)
        watches[prefix] = self.store.watch(prefix, prefix=True, after=after, wake=bell)
        bell.set()  # it may have rung before it was to be found

    def _open_source(self, prefix: str) -> None:
        self._users[prefix] = self._users.get(prefix, 0) + 1
        if prefix not in self._watches:
            self._open_watch(self._watches, prefix)

    def _close_source(self, prefix: str) -> None:
        users = self._users.get(prefix, 0)
        if users != 1:
            self._users[prefix] = max(0, users - 1)
            return
        del self._users[prefix]
        watch = self._watches.pop(prefix, None)
        if watch is not None:
            watch.close()
        self._spread(self._roster.forget(prefix, self._clock.monotonic()))

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
            rung = dict.fromkeys([self._rung.popleft() for _ in range(len(self._rung))])
            for prefix in rung:
                for watches in (self._watches, self._own_watches):
                    watch = watches.get(prefix)
                    if watch is not None and self._take(prefix, watch):
                        self._rung.append(prefix)

    def _take(self, prefix: str, watch: Watch) -> bool:
        """Take one event from a watch; return whether there was one."""
        try:
            event = watch.next(0)
        except ClosedError:
            return False
        except TrunklineError as error:
            self._fail(prefix, watch, error)
            return False
        if event is None:
            return False
        with self._lock:
            if self._watches.get(prefix) is watch:
                self._tell_owners(prefix, event)
                self._spread(self._roster.apply(prefix, event, self._clock.monotonic()))
                self._sync()
            elif self._own_watches.get(prefix) is watch:
                self._owners[prefix](prefix, event)
        return True

    def _tell_owners(self, source: str, event: WatchEvent) -> None:
        """Tell agents of this process what happened to their records."""
        if isinstance(event, Interrupted) or not self._owners_by_record:
            return
        if isinstance(event, Snapshot):
            entries = {entry.key: entry for entry in event.entries}
            for record, tell in list(self._owners_by_record.items()):
                if not record.startswith(source):
                    continue
                own = (entries[record],) if record in entries else ()
                tell(record, Snapshot(own, event.revision))
            return
        for entry in event.put:
            owner = self._owners_by_record.get(entry.key)
            if owner is not None:
                owner(entry.key, Changed((entry,), (), event.revision))
        for key in event.deleted:
            owner = self._owners_by_record.get(key)
            if owner is not None:
                owner(key, Changed((), (key,), event.revision))

    def _spread(self, events: list[DirectoryEvent]) -> None:
        for event in events:
            for subscription in self._subscriptions[:]:
                subscription.tell(event)

    def _sync(self) -> None:
        for subscription in self._subscriptions[:]:
            if subscription.awaits and self._roster.has_heard(subscription.awaits):
                subscription.awaits = ()
                subscription.tell(SYNCED)

    def _fail(self, prefix: str, watch: Watch, error: TrunklineError) -> None:
        """The store refuses to be watched: whoever relies on it is told."""
        _log.error("can't watch %s in %s: %s", prefix, self.store.url, error)
        watch.close()
        with self._lock:
            self._own_watches.pop(prefix, None)
            if self._watches.pop(prefix, None) is not None:
                for subscription in self._subscriptions[:]:
                    subscription.fail(error)


class _Registry:
    """The open observers of one process, with the number of their users."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.observers: dict[tuple[Hashable, str], tuple[Observer, int]] = {}


_registry = _Registry()


def open_observer(store: Store, namespace: str, *, ttl: float = 30.0, clock: Clock = SYSTEM_CLOCK) -> Observer:
    """Return this process's observer of a namespace; every call needs its :func:`close_observer`.

    Args:
        store: Where; it stays the caller's, the observer has a handle of its own.
        namespace: The namespace.
        ttl: As for Observer, if this is the first user.
        clock: As for Observer, if this is the first user.
    """
    with _registry.lock:
        key = (store.identity, namespace)
        observer, users = _registry.observers.get(key) or (
            Observer(store.share(), namespace, ttl=ttl, clock=clock),
            0,
        )
        _registry.observers[key] = observer, users + 1
        return observer


def close_observer(observer: Observer) -> None:
    """Give an observer back; its last user's call closes it. Does nothing in a forked child."""
    with _registry.lock:
        for key, (shared, users) in list(_registry.observers.items()):
            if shared is observer:
                if users > 1:
                    _registry.observers[key] = observer, users - 1
                    return
                del _registry.observers[key]
                break
        else:
            return
    observer.close()


def close_all() -> None:
    """Close every observer of this process, whoever uses it."""
    with _registry.lock:
        observers = [observer for observer, _ in _registry.observers.values()]
        _registry.observers.clear()
    for observer in observers:
        observer.close()


def _start_afresh() -> None:
    """In a forked child: its parent's observers are not its own, and their threads are not here."""
    global _registry  # noqa: PLW0603 - what it keeps is per process by nature
    _registry = _Registry()


atexit.register(close_all)
os.register_at_fork(after_in_child=_start_afresh)
