"""A publisher: what an agent publishes under its name, one publication after the other."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Self

import msgspec

from trunkline.backoff import Backoff
from trunkline.clock import Clock, Deadline
from trunkline.directory.holder import Holder
from trunkline.directory.session import Content
from trunkline.directory.sharing import close_observer
from trunkline.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineError,
    ForkedError,
    StoreAuthError,
    TrunklineError,
)
from trunkline.metadata.key import DEFAULT_LABEL, MetadataKey
from trunkline.metadata.presence import MAX_LABELS, Presence, State, encode_presence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from trunkline.directory.observer import Observer
    from trunkline.store.contract import Store

_log = logging.getLogger(__name__)

MIN_TTL = 2.0
"""Seconds; etcd grants no less."""

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
        self._key = key
        self._presence = msgspec.structs.replace(presence, ttl=ttl)
        encode_presence(self._presence)
        self._content = Content()
        self._clock = clock
        self._observer = observer
        self._turn = threading.Lock()  # held by whoever publishes, withdraws or mends
        self._backoff = Backoff()
        self._pid = os.getpid()
        self._holder = Holder(store, key, ttl, clock, observer, mend=partial(observer.upkeep.request, self))
        self._held: Content | None = self._content  # the content, if the store is known to hold just that
        self._revision = 0  # at which it did
        self._changed_at: float | None = None
        self._holder.claim(self._presence, self._content, Deadline(timeout, clock), takeover=takeover)

    @property
    def name(self) -> str:
        return self._key.agent

    @property
    def incarnation(self) -> str:
        return self._presence.incarnation

    @property
    def ttl(self) -> float:
        """Seconds, as the store granted it."""
        return self._holder.granted_ttl

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
    def is_in_doubt(self) -> bool:
        """Whether the store may hold something else than what was published last: that failed, or is under way."""
        return self._held is None

    @property
    def changed_at(self) -> float | None:
        """When, by the clock, a change in the store was last known of, whoever had it made: a call, or the upkeep that
        made up for one that had failed. None as long as there was none.
        """
        return self._changed_at

    @property
    def lost(self) -> str | None:
        """Why others can't find the agent at present, or None. It ends by itself, unless the name was taken over."""
        lost, obstacle = self._holder.lost, self._holder.obstacle
        return lost if lost is None or obstacle is None else f"{lost}; not back yet: {obstacle}"

    @property
    def is_superseded(self) -> bool:
        """Whether another incarnation has taken the name, for good."""
        return self._holder.is_superseded

    @property
    def sessions(self) -> int:
        """How many leases it has had, one after the other."""
        return self._holder.sessions

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
                label ``metadata`` removes the catalog, and others leave it as it is; an empty one always removes it.
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
            return self._change(self._presence, Content(labels, catalog or None), deadline)

    def holds(self, metadata: bytes, *, catalog: bytes | None, label: str) -> bool:
        """Return whether the store holds just this under a label, and this catalog (None or empty for no catalog), as
        far as is known without asking.

        Not while another thread publishes.
        """
        held = self._held
        return held is not None and held.labels.get(label) == metadata and held.catalog == (catalog or None)

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
        if self._holder.is_closed or os.getpid() != self._pid:
            return
        deadline = Deadline(timeout, self._clock)
        self._holder.stop()
        self._observer.upkeep.forget(self)
        left = deadline.remaining()
        has_turn = self._turn.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX))
        try:
            self._holder.close(deadline)
        finally:
            if self._held is None or self._held.labels:
                self._changed_at = self._clock.monotonic()
            if has_turn:
                self._turn.release()
            close_observer(self._observer)

    def mend(self) -> float | None:
        """Put in order what is not (for the upkeep)."""
        if not self._turn.acquire(blocking=False):  # whoever publishes puts it in order as well
            return self._backoff.next_delay()
        holder = self._holder
        try:
            if holder.is_closed or holder.is_superseded:
                return None
            deadline = Deadline(MEND_TIMEOUT + self._content.size / MEND_RATE, self._clock)
            self._hold(deadline)
        except TrunklineError as error:
            if holder.is_superseded or isinstance(error, (ClosedError, ForkedError)):
                return None
            is_denied = isinstance(error, StoreAuthError) and holder.obstacle is None
            _log.log(
                logging.WARNING if is_denied else logging.INFO,
                "agent %r is not back in the directory yet: %s",
                self.name,
                error,
            )
            holder.obstacle = str(error)
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
        state = "closed" if self._holder.is_closed else f"lost: {self.lost}" if self.lost else "open"
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
            if self._holder.is_closed:
                raise ClosedError(f"the publisher of agent {self.name!r} was closed", agent=self.name)
            if self._holder.is_superseded:
                raise self._holder.superseded()
            yield
        finally:
            self._turn.release()

    def _change(self, presence: Presence, content: Content, deadline: Deadline) -> int:
        """Make this what is published. What a passing failure prevents is made up for in the background."""
        before = self._presence, self._content
        self._presence, self._content, self._held = presence, content, None
        try:
            return self._hold(deadline, write_again=True)
        except TrunklineError as error:
            if error.retryable:
                self._observer.upkeep.request(self, self._backoff.next_delay())
            elif not self._holder.is_superseded:
                self._presence, self._content = before
            raise

    def _hold(self, deadline: Deadline, *, write_again: bool = False) -> int:
        revision = self._holder.hold(self._presence, self._content, deadline, write_again=write_again)
        if revision != self._revision:
            self._revision, self._changed_at = revision, self._clock.monotonic()
        self._held = self._content  # last: who sees it sees since when
        return revision
