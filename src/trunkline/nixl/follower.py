"""Keeping a NIXL agent's peers as the phone book says they are, in the threads that read the watches.

NIXL is not thread-safe by default (docs/adr/0009), so nothing here calls it from a thread of ours: the observer's
thread notes which peers something happened to, and whoever takes the next event from a watch brings these up to date.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

from trunkline.agent.announcer import Announcer
from trunkline.backoff import Backoff
from trunkline.clock import Clock, Deadline
from trunkline.directory.event import DirectoryEvent, NameConflict, PeerJoined, PeerLeft, PeerSuspect, PeerUpdated
from trunkline.errors import AgentNotFoundError, BackendError, ClosedError, StoreError, TrunklineError
from trunkline.metadata.key import DEFAULT_LABEL
from trunkline.nixl.watch import NixlWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from trunkline.agent.membership import Membership
    from trunkline.directory.publication import Publication
    from trunkline.directory.watch import DirectoryWatch
    from trunkline.nixl.remote_agents import NixlPeer, RemoteAgents

log = logging.getLogger(__name__)

RELOAD_TIMEOUT = 2.0
"""Seconds that a reader of a watch may be held up by one peer that can't be loaded again."""


class _Wanted:
    """A peer that the application has fetched, or is fetching. For the upkeep it is a reminder to try again.

    Args:
        again: Called when it is time to try again.

    Attributes:
        labels: The parts of its metadata that are kept.
        fetches: How many calls are just fetching it.
        departure: How it left since the first of these began; None if it came again.
    """

    def __init__(self, again: partial[None]) -> None:
        self.labels: dict[str, None] = {}
        self.fetches = 0
        self.departure: PeerLeft | None = None
        self.backoff = Backoff()
        self._again = again

    def mend(self) -> None:
        self._again()


class Follower:
    """Brings peers that were fetched up to date when :meth:`catch_up` is called. Any thread may call any method.

    Args:
        name: The agent's name.
        remote_agents: What its NIXL agent has loaded.
        membership: Its place in the phone book.
        clock: Measures time.
    """

    def __init__(self, name: str, remote_agents: RemoteAgents, membership: Membership, clock: Clock) -> None:
        self._name = name
        self._remote_agents = remote_agents
        self._membership = membership
        self._clock = clock
        self._lock = threading.RLock()  # guards the two below and what watches are told; never held while waiting
        self._wanted: dict[str, _Wanted] = {}
        self._touched: dict[str, PeerLeft | None] = {}  # peers to look at, and how they left, if that came last
        self._turn = threading.RLock()  # held by whoever catches up
        self._watches: list[NixlWatch] = []
        self._is_closed = False
        self.announcer = Announcer(name, membership.observer, self._lock, clock, open_watch=self._open_watch)
        self._subscription = membership.observer.subscribe(self._tell, self.announcer.fail)

    @property
    def is_behind(self) -> bool:
        """Whether something happened to a peer that was fetched, and it has not been looked at since."""
        return bool(self._touched) and not self._is_closed

    def fetch(self, names: Sequence[str], label: str, deadline: Deadline) -> list[NixlPeer]:
        """Find agents, load them, and keep them up to date from then on. Raises as NixlAdapter.fetch_many."""
        with contextlib.ExitStack() as fetching:
            wanted = {name: fetching.enter_context(self._fetching(name)) for name in dict.fromkeys(names)}
            found = self._membership.fetch(names, label, (), deadline)
            peers = {publication.name: self._take_in(publication, wanted[publication.name]) for publication in found}
        return [peers[name] for name in names]

    def forget(self, name: str) -> None:
        """Follow an agent no more, and remove it."""
        with self._lock:
            wanted = self._wanted.pop(name, None)
            self._touched.pop(name, None)
        if wanted is not None:
            self._membership.observer.upkeep.forget(wanted)
            self._membership.unfollow_nixl(name)
        with self._turn:  # after whoever is just loading it
            self._remote_agents.remove(name)

    def catch_up(self) -> None:
        """Bring up to date what is not. The store may hold the caller up for some seconds if it is in trouble.

        What can't be loaded is logged, and tried again later if that may help.
        """
        while self.is_behind:
            with self._turn:
                self._catch_up_with_one()

    def close(self, deadline: Deadline) -> None:
        """Follow nobody any more, and end the watches; what is loaded stays. Idempotent.

        Whoever is just catching up is waited for until the deadline.
        """
        with self._lock:
            self._is_closed = True
            wanted, self._wanted = self._wanted, {}
        for each in wanted.values():
            self._membership.observer.upkeep.forget(each)
        self._membership.observer.unsubscribe(self._subscription)
        self.announcer.close()
        left = deadline.remaining()
        if self._turn.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX)):
            self._turn.release()

    @contextlib.contextmanager
    def _fetching(self, name: str) -> Iterator[_Wanted]:
        """Note how a peer leaves from before it is read: whoever reads a watch may find nothing loaded to remove."""
        with self._lock:
            wanted = self._wanted.setdefault(name, _Wanted(partial(self._touch, name)))
            wanted.fetches += 1
            if wanted.fetches == 1:
                wanted.departure = None
        try:
            yield wanted
        finally:
            with self._lock:
                wanted.fetches -= 1
                if not wanted.labels and not wanted.fetches and self._wanted.get(name) is wanted:
                    del self._wanted[name]

    def _take_in(self, publication: Publication, wanted: _Wanted) -> NixlPeer:
        """Load what was fetched, and follow it from then on; if it can't be loaded things stay as they were."""
        name, label = publication.name, publication.label
        with self._lock:
            if self._is_closed:
                raise ClosedError(f"the adapter of agent {self._name!r} was closed", agent=self._name)
            # Before it is loaded: what happens to it meanwhile is to be looked at.
            wanted = self._wanted.setdefault(name, wanted)  # it may have been forgotten meanwhile
            is_new = label not in wanted.labels
            wanted.labels[label] = None
        if publication.presence is None:
            self._membership.follow_nixl(name)
        try:
            peer = self._remote_agents.load(publication)
        except BaseException:
            with self._lock:
                if is_new:
                    wanted.labels.pop(label, None)
            if not wanted.labels:
                self.forget(name)
            raise
        self._touch(name, wanted.departure)  # what was told of before it was loaded
        return peer

    def _open_watch(
        self,
        pattern: str,
        attributes: Mapping[str, str],
        *,
        include_nixl: bool,
        except_name: str,
        clock: Clock,
        on_close: Callable[[DirectoryWatch], None],
    ) -> NixlWatch:
        def close(closed: DirectoryWatch) -> None:
            with self._lock:
                self._watches.remove(watch)
            on_close(closed)

        watch = NixlWatch(
            pattern,
            attributes,
            include_nixl=include_nixl,
            except_name=except_name,
            clock=clock,
            on_close=close,
            follower=self,
        )
        with self._lock:
            self._watches.append(watch)
        return watch

    def _tell(self, event: DirectoryEvent) -> None:
        """Take an event from the observer, on its thread."""
        if isinstance(event, NameConflict) and event.name != self._name:
            return
        with self._lock:
            if isinstance(event, (PeerJoined, PeerUpdated, PeerSuspect, PeerLeft)):
                wanted = self._wanted.get(event.name)
                if wanted is not None:
                    wanted.departure = event if isinstance(event, PeerLeft) else None
                    self._touch(event.name, wanted.departure)
            self.announcer.tell(event)

    def _touch(self, name: str, departure: PeerLeft | None = None) -> None:
        with self._lock:
            if name not in self._wanted:
                return
            self._touched[name] = departure or self._touched.get(name)
            watches = self._watches[:]
        for watch in watches:
            watch.wake()

    def _catch_up_with_one(self) -> None:
        with self._lock:
            if not self.is_behind:  # another thread was faster
                return
            name = next(iter(self._touched))
            departure = self._touched.pop(name)
            wanted = self._wanted.get(name)
        if wanted is not None:
            self._bring_up_to_date(name, wanted, departure)

    def _bring_up_to_date(self, name: str, wanted: _Wanted, departure: PeerLeft | None) -> None:
        try:
            self._align(name, wanted, departure)
        except ClosedError:
            return
        except (AgentNotFoundError, StoreError, BackendError) as error:
            # It is gone again, and its event is on the way; or the store is away; or its connection was refused.
            log.warning("agent %r can't load peer %r again yet: %s", self._name, name, error)
            with self._lock:
                if self._wanted.get(name) is wanted:
                    self._membership.observer.upkeep.request(wanted, wanted.backoff.next_delay())
        except TrunklineError as error:
            log.warning("agent %r can't load peer %r again: %s", self._name, name, error)
            self._remote_agents.remove(name)
        else:
            wanted.backoff.reset()

    def _align(self, name: str, wanted: _Wanted, departure: PeerLeft | None) -> None:
        """Make what is loaded of a peer what is listed of it."""
        remote, (listing, _) = self._remote_agents, self._membership.observer.latest(name)
        if listing is None:
            # Else it is not heard of yet, or another thread is just loading it, which notes how it left.
            if departure is not None and remote.is_loaded(departure.agent):
                remote.remove(name)
            return
        if not remote.is_loaded(listing):
            remote.remove_other(listing)
            if listing.is_suspect:  # there is nothing to load: it joins again, or leaves
                return
        for label in sorted(wanted.labels, key=lambda label: label != DEFAULT_LABEL):
            if label not in listing.labels:
                remote.drop_label(name, label)
            elif remote.generation(name, label) != listing.labels[label]:
                self._load(name, label)
        remote.update(listing)

    def _load(self, name: str, label: str) -> None:
        deadline = Deadline(RELOAD_TIMEOUT, self._clock)
        [publication] = self._membership.fetch([name], label, (), deadline)
        if name in self._wanted:  # it may have been forgotten meanwhile
            self._remote_agents.load(publication)
