"""Holding an agent's name, and what is published under it, through lost leases and outages."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from trunkline.directory.event import NameConflict
from trunkline.directory.session import Content, Session
from trunkline.errors import AgentNameInUseError, SessionLostError, SupersededError, TrunklineError
from trunkline.store.contract import Interrupted, Snapshot, WatchEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.clock import Clock, Deadline
    from trunkline.directory.listening import Listening
    from trunkline.directory.observer import Observer
    from trunkline.metadata.key import MetadataKey
    from trunkline.metadata.presence import Presence
    from trunkline.store.contract import Store

_log = logging.getLogger(__name__)

ABANDON_TIMEOUT = 1.0
"""Seconds that giving back the lease of a failed claim may take, beyond the caller's time-out."""


class Holder:
    """Holds a name in one session after the other, until another incarnation has it.

    One thread at a time calls it; what happens to its lease and its keys comes from other threads, and is noted until
    the next :meth:`hold`.

    Args:
        store: Where.
        key: The agent; its label does not matter.
        ttl: Seconds after which the name is free if this process dies.
        clock: Measures deadlines.
        observer: Tells what happens to the agent's keys, and others what happened to its name.
        mend: Called, from any thread, when there is something to :meth:`hold` again.

    Attributes:
        session: The latest.
        sessions: How many there were.
        granted_ttl: Seconds, as the store granted it.
        lost: Why others can't find the agent at present, or None.
        obstacle: Why the latest attempt to come back failed.
        is_superseded: Whether another incarnation has the name, for good.
        is_closed: Whether it holds the name no more.
    """

    def __init__(
        self,
        store: Store,
        key: MetadataKey,
        ttl: float,
        clock: Clock,
        observer: Observer,
        *,
        mend: Callable[[], None],
    ) -> None:
        self.session: Session | None = None
        self.sessions = 0
        self.granted_ttl = ttl
        self.lost: str | None = None
        self.obstacle: str | None = None
        self.is_superseded = False
        self.is_closed = False
        self._store = store
        self._key = key
        self._ttl = ttl
        self._clock = clock
        self._observer = observer
        self._mend = mend
        self._leases: set[int] = set()
        self._missed: set[str] = set()  # keys that somebody seems to have deleted
        self._overwritten: set[str] = set()  # keys that somebody else wrote to; the next publication writes them again
        self._strangers: dict[str, int] = {}  # keys that were told of, with the revision of that
        self._listening: Listening | None = None

    def claim(self, presence: Presence, content: Content, deadline: Deadline, *, takeover: bool) -> None:
        """Take the name, once, and listen from then on to what happens to its keys.

        Raises:
            AgentNameInUseError: Another agent holds the name and lives.
            StoreError: The store failed.
        """
        key = self._key
        session = self._open_session(presence, content, deadline, takeover=takeover, is_patient=True)
        self._listening = self._observer.listen(
            key.agent_prefix, key.presence, self._take_own_event, after=session.revision
        )

    def hold(self, presence: Presence, content: Content, deadline: Deadline, *, write_again: bool = False) -> int:
        """Make the store hold what is to be published, on a new lease if need be; return the revision.

        Args:
            presence: What the agent says of itself, without labels and catalog.
            content: What it publishes.
            deadline: When to give up.
            write_again: Whether keys that somebody else wrote to are written again.

        Raises:
            SupersededError: Another agent took the name over.
            StoreLimitError, StoreError: As for Session.write.
        """
        again = tuple(self._overwritten) if write_again else ()
        record_was_missed = False
        while True:
            session = self.session
            if session is not None and not session.lease.is_lost:
                try:
                    if not self._missed.isdisjoint(session.keys):
                        self._missed.clear()
                        session.repair(content, deadline)
                    revision = session.write(presence, content, deadline, again=again)
                except SupersededError as error:
                    self._give_up(str(error))
                    raise
                except SessionLostError as error:
                    self.lost = self.lost or str(error)
                    if not record_was_missed:  # perhaps only the record is gone, and the lease lives
                        record_was_missed = True
                        self._missed.add(self._key.presence)
                        continue
                else:
                    self.lost = self.obstacle = None
                    self._overwritten.difference_update(again)
                    return revision
            self.lost = self.lost or self._reason()
            if session is not None:
                session.lease.orphan()
            try:
                self._open_session(presence, content, deadline, takeover=False, is_patient=False)
            except AgentNameInUseError as error:
                self._give_up(str(error))
                raise self.superseded() from error
            _log.info("agent %r is back in the directory, in session number %d", self._key.agent, self.sessions)
            self.lost = self.obstacle = None

    def stop(self) -> None:
        """Mind no more what happens to the name; what is held stays until :meth:`close`."""
        self.is_closed = True
        self._stop_listening()

    def close(self, deadline: Deadline) -> None:
        """Give the name up: all its keys vanish."""
        if self.session is not None:
            self.session.close(deadline.remaining())

    def superseded(self) -> SupersededError:
        """Return the error that says who took the name."""
        key = self._key
        return SupersededError(
            f"another agent took the name {key.agent!r} over ({key.presence} in {self._store.url}); open a new "
            "agent under another name, or with takeover=True",
            agent=key.agent,
            key=key.presence,
        )

    def _open_session(
        self, presence: Presence, content: Content, deadline: Deadline, *, takeover: bool, is_patient: bool
    ) -> Session:
        """Claim the name on a new lease, and publish everything with it."""
        lease = self._store.grant(self._ttl, on_lost=self._lease_lost, timeout=deadline.remaining())
        self._leases.add(lease.id)
        session = Session(self._store, self._key, lease, self._clock, after=self.session)
        try:
            session.claim(presence, content, deadline, takeover=takeover, is_patient=is_patient)
        except BaseException:
            with suppress(TrunklineError):  # why the claim failed is what counts; the lease also ends by itself
                lease.close(ABANDON_TIMEOUT)
            raise
        self._missed.clear()
        self.granted_ttl = lease.ttl
        self.sessions += 1
        self.session = session
        return session

    def _give_up(self, reason: str) -> None:
        """Another incarnation has the name: stop for good, and say so."""
        self.is_superseded = True
        self.lost, self.obstacle = f"another agent took the name over: {reason}", None
        _log.warning("agent %r lost its name: %s", self._key.agent, reason)
        if self.session is not None:
            self.session.lease.orphan()
        self._stop_listening()
        self._observer.tell(NameConflict(self._key.agent, self._key.presence, is_lost=True))

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._observer.stop_listening(self._listening)

    def _reason(self) -> str:
        return f"the lease of {self._ttl:.0f} s ran out or was revoked"

    def _lease_lost(self) -> None:
        """Called by the store's thread."""
        if self.is_closed or self.is_superseded:
            return
        self.lost = self.lost or self._reason()
        _log.warning("agent %r lost its session: %s", self._key.agent, self.lost)
        self._observer.excuse()
        self._mend()

    def _take_own_event(self, selection: str, event: WatchEvent) -> None:
        """Look at what happened to keys of this agent's; called by the observer's thread.

        Args:
            selection: Which of them: the key of the record, or what the others start with.
            event: What happened to these.
        """
        session = self.session
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
                _log.warning("agent %r: another program writes under its name: %s", self._key.agent, entry.key)
                self._observer.tell(NameConflict(self._key.agent, entry.key, is_lost=False))
        if gone:
            self._missed |= gone
            self._mend()
