"""A session: one incarnation of an agent holding its name by one lease."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

import msgspec

from trunkline.clock import Clock, Deadline
from trunkline.directory.claim import Claim
from trunkline.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineError,
    SessionLostError,
    StoreLimitError,
    SupersededError,
    TrunklineError,
)
from trunkline.metadata.key import DEFAULT_LABEL, MetadataKey
from trunkline.metadata.presence import (
    MAX_LABELS,
    LabelRecord,
    Presence,
    content_record,
    decode_presence,
    encode_presence,
)
from trunkline.store.contract import (
    Condition,
    Delete,
    Get,
    KeyHasLease,
    KeyIsAbsent,
    Operation,
    Put,
    Store,
    Transaction,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_log = logging.getLogger(__name__)

MIN_TTL = 2.0
"""Seconds; etcd grants no less."""

MAX_PUBLICATION_SIZE = 1_468_006
"""Bytes of metadata, catalog and presence record together: 1.4 MiB. etcd's limit for a transaction is 1.5 MiB."""

ABANDON_TIMEOUT = 1.0
"""Seconds that giving back the lease of a failed claim may take, beyond the caller's time-out."""

CLOSE_TIMEOUT = 5.0
"""Seconds that giving up a lease may take; after that it runs out by itself."""


class Session:
    """Holds a name in the directory until it is closed or lost. Made by ``Directory.open_session``; a context manager.

    All methods may be called from any thread; publications happen one after the other. A lost session stays lost:
    publishing raises, and a new session has to be opened.

    Args:
        store: Where.
        key: The agent; its label does not matter.
        presence: What the agent says about itself; no labels yet.
        ttl: Seconds after which the name is free if this process dies.
        takeover: Replace a live holder of the name.
        timeout: Seconds to wait for the store and for a holder to go; None waits for ever.
        clock: Measures deadlines.

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
    ) -> None:
        if not MIN_TTL <= ttl <= 86_400:
            raise ConfigurationError(f"ttl={ttl}: a session's TTL lies between 2 seconds and a day", ttl=ttl)
        record = encode_presence(presence)
        deadline = Deadline(timeout, clock)
        self._store = store
        self._key = key
        self._presence = presence
        self._clock = clock
        self._generation = 0
        self._marker_is_put = True
        self._is_in_doubt = False
        self._is_closed = False
        self._lost: str | None = None
        self._turn = threading.Lock()  # held by whoever publishes or withdraws
        self._lease = store.grant(ttl, on_lost=self._on_lost, timeout=deadline.remaining())
        try:
            claim = Claim(store, key, self._lease.id, record, presence.incarnation, takeover, clock)
            claim.run(deadline)
        except BaseException:
            with suppress(TrunklineError):  # why the claim failed is what counts; the lease also ends by itself
                self._lease.close(ABANDON_TIMEOUT)
            raise

    @property
    def name(self) -> str:
        return self._key.agent

    @property
    def incarnation(self) -> str:
        return self._presence.incarnation

    @property
    def ttl(self) -> float:
        """Seconds, as the store granted it."""
        return self._lease.ttl

    @property
    def lost(self) -> str | None:
        """Why the session is lost, or None. Set when the store says so, at the latest by the next publication."""
        return self._lost

    def publish(
        self,
        metadata: bytes,
        *,
        catalog: bytes | None = None,
        label: str = DEFAULT_LABEL,
        timeout: float | None = 30.0,
    ) -> int:
        """Put metadata and the presence record that describes it, in one transaction, and return its revision.

        Args:
            metadata: The label's value; it replaces the one before.
            catalog: Goes with the full metadata, label ``metadata``; without it that label's publication
                removes the catalog.
            label: Which part of the agent's metadata this is.
            timeout: Seconds; None waits for ever.

        Raises:
            SessionLostError: The lease is gone, and all keys with it.
            SupersededError: Another agent took the name over.
            StoreLimitError: Everything together is over 1.4 MiB.
            ConfigurationError: The label is not allowed, there are more than 64, or a catalog comes with another
                label than ``metadata``.
            ClosedError, DeadlineError, StoreError: The session was closed, an earlier publication took too
                long, the store failed (then this one may or may not have happened).
        """
        key = MetadataKey(self._key.namespace, self.name, label)
        if catalog is not None and label != DEFAULT_LABEL:
            raise ConfigurationError(f"a catalog goes with the label {DEFAULT_LABEL!r}, not with {label!r}")
        deadline = Deadline(timeout, self._clock)
        with self._my_turn(deadline):
            self._generation += 1
            record = content_record(metadata)
            labels = {**self._presence.labels, label: LabelRecord(record.size, record.sha256, self._generation)}
            if len(labels) > MAX_LABELS:
                raise ConfigurationError(f"agent {self.name!r} publishes {MAX_LABELS} labels already", label=label)
            operations: list[Operation] = [Put(str(key), metadata, self._lease.id)]
            presence = msgspec.structs.replace(self._presence, labels=labels)
            if label == DEFAULT_LABEL:
                presence = msgspec.structs.replace(
                    presence, catalog=None if catalog is None else content_record(catalog)
                )
                operations.append(Delete(key.catalog) if catalog is None else Put(key.catalog, catalog, self._lease.id))
            return self._write(presence, operations, marker_is_put=True, deadline=deadline)

    def withdraw(self, *, label: str | None = None, timeout: float | None = 30.0) -> int:
        """Delete what was published and return the revision at which it was gone. The name stays held.

        When nothing is left, the marker goes too, so that NIXL's peers forget the agent; the next publication
        puts it again.

        Args:
            label: What to delete; None means everything. The catalog goes with the label ``metadata``.
            timeout: Seconds; None waits for ever.

        Raises:
            SessionLostError, SupersededError, ClosedError, DeadlineError, StoreError: As in :meth:`publish`.
        """
        deadline = Deadline(timeout, self._clock)
        with self._my_turn(deadline):
            gone = tuple(self._presence.labels) if label is None else (label,)
            keys = [MetadataKey(self._key.namespace, self.name, each) for each in gone]
            operations: list[Operation] = [Delete(str(key)) for key in keys]
            labels = {each: record for each, record in self._presence.labels.items() if each not in gone}
            presence = msgspec.structs.replace(self._presence, labels=labels)
            if DEFAULT_LABEL not in labels:
                presence = msgspec.structs.replace(presence, catalog=None)
                operations.append(Delete(self._key.catalog))
            if not labels:
                operations.append(Delete(self._key.marker))
            return self._write(presence, operations, marker_is_put=bool(labels), deadline=deadline)

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Give the name up: all keys of the session vanish. Idempotent.

        It takes at most ``timeout`` seconds; if the store does not answer, the keys go with the TTL.
        """
        self._is_closed = True
        self._lease.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"lost: {self._lost}" if self._lost else "open"
        return f"<Session {self.name!r} {self.incarnation[:8]} {state}>"

    @contextmanager
    def _my_turn(self, deadline: Deadline) -> Iterator[None]:
        left = deadline.remaining()
        if not self._turn.acquire(timeout=-1 if left is None else left):
            raise DeadlineError(
                f"agent {self.name!r}: an earlier publication did not end within {deadline.elapsed:.1f} s",
                agent=self.name,
                elapsed=deadline.elapsed,
            )
        try:
            if self._is_closed:
                raise ClosedError(f"the session of agent {self.name!r} was closed", agent=self.name)
            if self._is_in_doubt:
                self._reload(deadline)
            yield
        finally:
            self._turn.release()

    def _write(
        self, presence: Presence, operations: list[Operation], *, marker_is_put: bool, deadline: Deadline
    ) -> int:
        """Run the operations together with the new presence record, if the name is still ours.

        The marker is put along if it should be there and is not, and never twice: NIXL's peers must see it deleted
        in between.
        """
        lease, record = self._lease.id, encode_presence(presence)
        puts = [operation for operation in operations if isinstance(operation, Put)]
        size = len(record) + sum(len(put.value) for put in puts)
        if size > MAX_PUBLICATION_SIZE:
            sizes = ", ".join(f"{put.key} {len(put.value)} bytes" for put in puts)
            raise StoreLimitError(
                f"agent {self.name!r} can't publish {size} bytes at once (at most {MAX_PUBLICATION_SIZE}): {sizes}, "
                f"presence record {len(record)} bytes. Register fewer, larger ranges, or pass the metadata to the "
                "peer yourself",
                agent=self.name,
                size=size,
                limit=MAX_PUBLICATION_SIZE,
            )
        conditions: list[Condition] = [KeyHasLease(self._key.presence, lease)]
        writes = [*operations, Put(self._key.presence, record, lease)]
        if marker_is_put and not self._marker_is_put:
            conditions.append(KeyIsAbsent(self._key.marker))
            writes.append(Put(self._key.marker, b"", lease))
        self._is_in_doubt = True
        result = self._store.transact(
            Transaction(tuple(conditions), tuple(writes), (Get(self._key.presence),)), timeout=deadline.remaining()
        )
        revision = result.revision
        if not result.succeeded:
            found = result.reads[0][0] if result.reads[0] else None
            if found is None or found.lease != lease:
                raise self._loss(is_superseded=found is not None)
            if found.value != record:  # the marker is there, and somebody else's: one is enough
                self._marker_is_put = True
                return self._write(presence, operations, marker_is_put=True, deadline=deadline)
            revision = found.mod_revision  # an attempt that succeeded and whose answer was lost
        self._is_in_doubt = False
        self._presence = presence
        self._marker_is_put = marker_is_put
        return revision

    def _reload(self, deadline: Deadline) -> None:
        """Find out whether a transaction whose answer was lost happened. A lost name shows in the next one."""
        record, marker = self._store.transact(
            Transaction((), (Get(self._key.presence), Get(self._key.marker))), timeout=deadline.remaining()
        ).reads
        if record and record[0].lease == self._lease.id:
            self._presence = decode_presence(record[0].value)
            self._marker_is_put = bool(marker)
            self._is_in_doubt = False

    def _loss(self, *, is_superseded: bool) -> SessionLostError | SupersededError:
        kind = SupersededError if is_superseded else SessionLostError
        self._lost = (
            "another agent took the name over"
            if is_superseded
            else "its keys are gone: the lease ran out or was revoked, or somebody deleted them"
        )
        return kind(
            f"agent {self.name!r} lost its session: {self._lost} ({self._key.presence} in {self._store.url}). "
            "Open a new session to publish again",
            agent=self.name,
            key=self._key.presence,
            lease=self._lease.id,
        )

    def _on_lost(self) -> None:
        """Called by the store's thread."""
        if self._lost is None:
            self._lost = f"the lease of {self.ttl:.0f} s ran out or was revoked"
        _log.warning("agent %r lost its session: %s", self.name, self._lost)
