"""A publisher: an agent's name and publications, kept in the directory through lost leases and outages."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

import msgspec

from trunkline.backoff import Backoff
from trunkline.clock import Clock, Deadline
from trunkline.directory.event import NameConflict
from trunkline.directory.session import Content, Session
from trunkline.directory.sharing import close_observer
from trunkline.errors import (
    AgentNameInUseError,
    ClosedError,
    ConfigurationError,
    DeadlineError,
    ForkedError,
    SessionLostError,
    StoreAuthError,
    SupersededError,
    TrunklineError,
)
from trunkline.metadata.key import DEFAULT_LABEL, MetadataKey
from trunkline.metadata.presence import MAX_LABELS, Presence, State, encode_presence
from trunkline.store.contract import Interrupted, Snapshot, WatchEvent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from types import TracebackType

    from trunkline.directory.listening import Listening
    from trunkline.directory.observer import Observer
    from trunkline.store.contract import Store

_log = logging.getLogger(__name__)

MIN_TTL = 2.0
"""Seconds; etcd grants no less."""

ABANDON_TIMEOUT = 1.0
"""Seconds that giving back the lease of a failed claim may take, beyond the caller's time-out."""

CLOSE_TIMEOUT = 5.0
"""Seconds that giving up a lease may take; after that it runs out by itself."""

MEND_TIMEOUT = 5.0
"""Seconds that one attempt in the background may take, and more for what is large:"""

MEND_RATE = 1 << 20
"""Bytes a second that are enough for it."""


class Publisher:
    """Holds a name and what is published under it. Made by ``Directory.open_publisher``; a context manager.

    When its lease is lost (the store was away, the process stood still, somebody revoked it) it gets another and
    publishes everything again, by itself. When another incarnation has taken the name meanwhile, it is superseded:
    that is final, and every call says so. Keys of its own that somebody deletes are put again.

    All methods may be called from any thread; publications happen one after the other.

    Args:
        store: Where.
        key: The agent; its label does not matter.
        presence: What the agent says about itself; no labels yet.
        ttl: Seconds after which the name is free if this process dies.
        takeover: Replace a live holder of the name.
        timeout: Seconds to wait for the store and for a holder to go; None waits for ever.
        clock: Measures deadlines.
        observer: Tells what happens to the agent's keys; its upkeep mends. Given back when the publisher closes.

    Raises:
        ConfigurationError: ``ttl`` is under 2 seconds, or the presence record breaks its bounds.
        AgentNameInUseError: Another agent holds the name and lives.
        StoreError: The store failed.
    """

    def __init__(
        self,
        store: Store,
        key: MetadataKey,
        presence: Presence,
        *,
        ttl: float,
        takeover: bool,
        timeout: float | None,
        clock: Clock,
        observer: Observer,
    ) -> None:
        if not MIN_TTL <= ttl <= 86_400:
            raise ConfigurationError(f"ttl={ttl}: a session's TTL lies between 2 seconds and a day", ttl=ttl)
        self._store = store
        self._key = key
        self._presence = msgspec.structs.replace(presence, ttl=ttl)
        encode_presence(self._presence)
        self._content = Content()
        self._ttl = ttl
        self._clock = clock
        self._observer = observer
        self._turn = threading.Lock()  # held by whoever publishes, withdraws or mends
        self._backoff = Backoff()
        self._pid = os.getpid()
        self._session: Session | None = None
        self._leases: set[int] = set()
        self._sessions = 0
        self._missed: set[str] = set()  # keys that somebody seems to have deleted
        self._granted_ttl = ttl
        self._overwritten: set[str] = set()  # keys that somebody else wrote to; the next publication writes them again
        self._lost: str | None = None
        self._obstacle: str | None = None  # why the latest attempt to come back failed
        self._is_superseded = False
        self._is_closed = False
        self._strangers: dict[str, int] = {}  # keys that were told of, with the revision of that
        self._listening: Listening | None = None
        session = self._open_session(Deadline(timeout, clock), takeover=takeover, is_patient=True)
        self._listening = observer.listen(key.agent_prefix, key.presence, self._take_own_event, after=session.revision)

    @property
    def name(self) -> str:
        return self._key.agent

    @property
    def incarnation(self) -> str:
        return self._presence.incarnation

    @property
    def ttl(self) -> float:
        """Seconds, as the store granted it."""
        return self._granted_ttl

    @property
    def attributes(self) -> Mapping[str, str]:
        """What others see and select by."""
        return self._presence.attributes

    @property
    def state(self) -> State:
        """``ready`` or ``draining``."""
        return self._presence.state

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that are published."""
        return tuple(self._content.labels)

    @property
    def lost(self) -> str | None:
        """Why others can't find the agent at present, or None. It ends by itself, unless the name was taken over."""
        lost, obstacle = self._lost, self._obstacle
        return lost if lost is None or obstacle is None else f"{lost}; not back yet: {obstacle}"

    @property
    def is_superseded(self) -> bool:
        """Whether another incarnation has taken the name, for good."""
        return self._is_superseded

    @property
    def sessions(self) -> int:
        """How many leases it has had, one after the other."""
        return self._sessions

    def publish(
        self,
        metadata: bytes,
        *,
        catalog: bytes | None = None,
        label: str = DEFAULT_LABEL,
        timeout: float | None = 30.0,
    ) -> int:
        """Put metadata and the presence record that describes it, in one transaction, and return its revision.

        If they are over 1 MiB together, the largest of them are written in chunks before that transaction. Under the
        label NIXL's agents then find how this one is reached, and no memory.

        What is published already is not written again. If the store can't be reached in time, the publication is made
        up for as soon as it can, unless another replaces it.

        Args:
            metadata: The label's value; it replaces the one before.
            catalog: What the agent offers by name, under all its labels; it replaces the one before. Without it, the
                label ``metadata`` removes the catalog, and others leave it as it is.
            label: Which part of the agent's metadata this is.
            timeout: Seconds; None waits for ever.

        Raises:
            SupersededError: Another agent took the name over.
            StoreLimitError: Metadata or catalog is over 64 MiB.
            ConfigurationError: The label is not allowed, or there are more than 64.
            ClosedError, DeadlineError, StoreError: The publisher was closed, an earlier publication took too
                long, the store failed (then this one may or may not have happened).
        """
        MetadataKey(self._key.namespace, self.name, label)  # refuses what can't be a key
        deadline = Deadline(timeout, self._clock)
        with self._my_turn(deadline):
            labels = {**self._content.labels, label: metadata}
            if len(labels) > MAX_LABELS:
                raise ConfigurationError(f"agent {self.name!r} publishes {MAX_LABELS} labels already", label=label)
            if catalog is None and label != DEFAULT_LABEL:
                catalog = self._content.catalog
            return self._change(self._presence, Content(labels, catalog), deadline)

    def withdraw(self, *, label: str | None = None, timeout: float | None = 30.0) -> int:
        """Delete what was published and return the revision at which it was gone. The name stays held.

        When nothing is left, the marker goes too, so that NIXL's peers forget the agent; the next publication
        puts it again.

        Args:
            label: What to delete; None means everything. The catalog goes with the last label.
            timeout: Seconds; None waits for ever.

        Raises:
            SupersededError, ClosedError, DeadlineError, StoreError: As in :meth:`publish`.
        """
        deadline = Deadline(timeout, self._clock)
        with self._my_turn(deadline):
            labels = {each: value for each, value in self._content.labels.items() if label not in (None, each)}
            return self._change(self._presence, Content(labels, self._content.catalog if labels else None), deadline)

    def update(
        self,
        *,
        attributes: Mapping[str, str] | None = None,
        state: State | None = None,
        timeout: float | None = 30.0,
    ) -> int:
        """Change what the agent says of itself, in one put; return its revision.

        Args:
            attributes: All of them; None leaves them as they are.
            state: ``ready`` or ``draining``; None leaves it as it is.
            timeout: Seconds; None waits for ever.

        Raises:
            ConfigurationError: There are more than 32, or one is too long.
            SupersededError, ClosedError, DeadlineError, StoreError: As in :meth:`publish`.
        """
        deadline = Deadline(timeout, self._clock)
        with self._my_turn(deadline):
            presence = msgspec.structs.replace(
                self._presence,
                attributes=dict(self.attributes if attributes is None else attributes),
                state=state or self.state,
            )
            encode_presence(presence)
            return self._change(presence, self._content, deadline)

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Give the name up: all its keys vanish. Idempotent; does nothing in a forked child.

        It takes at most ``timeout`` seconds; if the store does not answer, the keys go with the TTL.
        """
        if self._is_closed or os.getpid() != self._pid:
            return
        self._is_closed = True
        deadline = Deadline(timeout, self._clock)
        self._stop_listening()
        self._observer.upkeep.forget(self)
        left = deadline.remaining()
        has_turn = self._turn.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX))
        try:
            if self._session is not None:
                self._session.close(deadline.remaining())
        finally:
            if has_turn:
                self._turn.release()
            close_observer(self._observer)

    def mend(self) -> float | None:
        """Put in order what is not (for the upkeep)."""
        if not self._turn.acquire(blocking=False):  # whoever publishes puts it in order as well
            return self._backoff.next_delay()
        try:
            if self._is_closed or self._is_superseded:
                return None
            self._put_in_order(Deadline(MEND_TIMEOUT + self._content.size / MEND_RATE, self._clock))
        except TrunklineError as error:
            if self._is_superseded or isinstance(error, (ClosedError, ForkedError)):
                return None
            is_denied = isinstance(error, StoreAuthError) and self._obstacle is None
            _log.log(
                logging.WARNING if is_denied else logging.INFO,
                "agent %r is not back in the directory yet: %s",
                self.name,
                error,
            )
            self._obstacle = str(error)
            return self._backoff.next_delay()
        finally:
            self._turn.release()
        self._backoff.reset()
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"lost: {self.lost}" if self.lost else "open"
        return f"<Publisher {self.name!r} {self.incarnation[:8]} {state}>"

    @contextmanager
    def _my_turn(self, deadline: Deadline) -> Iterator[None]:
        if os.getpid() != self._pid:
            raise ForkedError(f"the publisher of agent {self.name!r} belongs to the parent process", agent=self.name)
        left = deadline.remaining()
        if not self._turn.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX)):
            raise DeadlineError(
                f"agent {self.name!r}: an earlier publication did not end within {deadline.elapsed:.1f} s; is the "
                "store away?",
                agent=self.name,
                elapsed=deadline.elapsed,
            )
        try:
            if self._is_closed:
                raise ClosedError(f"the publisher of agent {self.name!r} was closed", agent=self.name)
            if self._is_superseded:
                raise self._superseded()
            yield
        finally:
            self._turn.release()

    def _change(self, presence: Presence, content: Content, deadline: Deadline) -> int:
        """Make this what is published. What a passing failure prevents is made up for in the background."""
        before = self._presence, self._content
        self._presence, self._content = presence, content
        try:
            return self._put_in_order(deadline, again=tuple(self._overwritten))
        except TrunklineError as error:
            if error.retryable:
                self._observer.upkeep.request(self, self._backoff.next_delay())
            elif not self._is_superseded:
                self._presence, self._content = before
            raise

    def _put_in_order(self, deadline: Deadline, *, again: Collection[str] = ()) -> int:
        """Make the store hold what is to be published, on a new lease if need be; return the revision."""
        record_was_missed = False
        while True:
            session = self._session
            if session is not None and not session.lease.is_lost:
                try:
                    if not self._missed.isdisjoint(session.keys):
                        self._missed.clear()
                        session.repair(self._content, deadline)
                    revision = session.write(self._presence, self._content, deadline, again=again)
                except SupersededError as error:
                    self._give_up(str(error))
                    raise
                except SessionLostError as error:
                    self._lost = self._lost or str(error)
                    if not record_was_missed:  # perhaps only the record is gone, and the lease lives
                        record_was_missed = True
                        self._missed.add(self._key.presence)
                        continue
                else:
                    self._lost = self._obstacle = None
                    self._overwritten.difference_update(again)
                    return revision
            self._lost = self._lost or self._reason()
            if session is not None:
                session.lease.orphan()
            try:
                self._open_session(deadline, takeover=False, is_patient=False)
            except AgentNameInUseError as error:
                self._give_up(str(error))
                raise self._superseded() from error
            _log.info("agent %r is back in the directory, in session number %d", self.name, self._sessions)
            self._lost = self._obstacle = None

    def _open_session(self, deadline: Deadline, *, takeover: bool, is_patient: bool) -> Session:
        """Claim the name on a new lease, and publish everything with it."""
        lease = self._store.grant(self._ttl, on_lost=self._lease_lost, timeout=deadline.remaining())
        self._leases.add(lease.id)
        session = Session(self._store, self._key, lease, self._clock, after=self._session)
        try:
            session.claim(self._presence, self._content, deadline, takeover=takeover, is_patient=is_patient)
        except BaseException:
            with suppress(TrunklineError):  # why the claim failed is what counts; the lease also ends by itself
                lease.close(ABANDON_TIMEOUT)
            raise
        self._missed.clear()
        self._granted_ttl = lease.ttl
        self._sessions += 1
        self._session = session
        return session

    def _give_up(self, reason: str) -> None:
        """Another incarnation has the name: stop for good, and say so."""
        self._is_superseded = True
        self._lost, self._obstacle = f"another agent took the name over: {reason}", None
        _log.warning("agent %r lost its name: %s", self.name, reason)
        if self._session is not None:
            self._session.lease.orphan()
        self._stop_listening()
        self._observer.tell(NameConflict(self.name, self._key.presence, is_lost=True))

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._observer.stop_listening(self._listening)

    def _superseded(self) -> SupersededError:
        return SupersededError(
            f"another agent took the name {self.name!r} over ({self._key.presence} in {self._store.url}); open a new "
            "agent under another name, or with takeover=True",
            agent=self.name,
            key=self._key.presence,
        )

    def _reason(self) -> str:
        return f"the lease of {self._ttl:.0f} s ran out or was revoked"

    def _lease_lost(self) -> None:
        """Called by the store's thread."""
        if self._is_closed or self._is_superseded:
            return
        self._lost = self._lost or self._reason()
        _log.warning("agent %r lost its session: %s", self.name, self._lost)
        self._observer.excuse()
        self._observer.upkeep.request(self)

    def _take_own_event(self, selection: str, event: WatchEvent) -> None:
        """Look at what happened to keys of this agent's; called by the observer's thread.

        Args:
            selection: Which of them: the key of the record, or what the others start with.
            event: What happened to these.
        """
        session = self._session
        if isinstance(event, Interrupted) or session is None:
            return
        if isinstance(event, Snapshot):
            present = {entry.key for entry in event.entries}
            gone = {key for key in session.keys if key.startswith(selection) and key not in present}
            entries = event.entries
        else:
            gone, entries = set(event.deleted), event.put
        strangers = [entry for entry in entries if entry.lease not in self._leases]
        for entry in strangers:
            if entry.key == self._key.presence:  # another incarnation: looking closer will show it
                gone.add(entry.key)
            elif entry.mod_revision != self._strangers.get(entry.key):
                self._strangers[entry.key] = entry.mod_revision
                self._overwritten.add(entry.key)
                _log.warning("agent %r: another program writes under its name: %s", self.name, entry.key)
                self._observer.tell(NameConflict(self.name, entry.key, is_lost=False))
        if gone:
            self._missed |= gone
            self._observer.upkeep.request(self)
