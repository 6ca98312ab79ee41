"""A session: an agent's name and publications on one lease."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from trunkline.clock import Clock, Deadline
from trunkline.directory.chunks import MAX_TRANSACTION_SIZE, ChunkWriter, choose_chunked
from trunkline.directory.claim import Claim
from trunkline.errors import (
    MetadataDecodeError,
    SessionLostError,
    StoreRequestError,
    SupersededError,
    TrunklineError,
)
from trunkline.metadata.head import without_sections
from trunkline.metadata.key import MetadataKey
from trunkline.metadata.presence import (
    ContentRecord,
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
    KeyHasRevision,
    KeyIsAbsent,
    Operation,
    Put,
    Store,
    Transaction,
    TransactionResult,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from trunkline.store.contract import Lease


@dataclass(frozen=True, slots=True)
class Content:
    """What an agent publishes: encoded metadata by label, and the catalog of what it offers by name."""

    labels: Mapping[str, bytes] = field(default_factory=dict)
    catalog: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes of it all."""
        return sum(map(len, self.labels.values())) + len(self.catalog or b"")


class Session:
    """Holds a name by one lease until that is lost; a lost session stays lost. One thread at a time.

    Attributes:
        lease: What all its keys hang on.
        presence: The record as it stands in the store.
        generation: Counts publications.
        revision: The store's revision of the latest.

    Args:
        store: Where.
        key: The agent; its label does not matter.
        lease: What all its keys hang on; the session closes it.
        clock: Measures deadlines.
        after: The agent's session before: what stayed the same keeps its generation, so that peers need not load it
            again.
    """

    def __init__(
        self, store: Store, key: MetadataKey, lease: Lease, clock: Clock, *, after: Session | None = None
    ) -> None:
        self.lease = lease
        self.revision = 0
        self._store = store
        self._key = key
        self._clock = clock
        self.presence: Presence = Presence(incarnation="") if after is None else after.presence
        self.generation: int = 0 if after is None else after.generation
        self._chunks = ChunkWriter(store, key, lease.id)
        self._marker_is_put = False
        self._record_revision = 0  # at which the record was put that all this goes by
        self._is_in_doubt = False  # an answer was lost; until the next transaction succeeds that one may still arrive

    def claim(
        self, presence: Presence, content: Content, deadline: Deadline, *, takeover: bool, is_patient: bool
    ) -> int:
        """Take the name, and publish with it in the same transaction; return its revision.

        Raises:
            As :meth:`trunkline.directory.claim.Claim.run`, and:
            SessionLostError: The lease is gone already.
            StoreLimitError: As :meth:`write`.
        """
        presence, values = self._arrange(presence, content, deadline, is_claimed=False)
        record = encode_presence(presence)
        puts = [Put(name, value, self.lease.id) for name, value in values.items()]
        claim = Claim(
            self._store,
            self._key,
            self.lease.id,
            record,
            presence.incarnation,
            takeover,
            tuple(puts),
            is_patient,
            self._clock,
        )
        self.revision = self._record_revision = claim.run(deadline)
        self.presence = presence
        self._marker_is_put = True
        return self.revision

    def write(self, presence: Presence, content: Content, deadline: Deadline, *, again: Collection[str] = ()) -> int:
        """Make the store hold what the agent says and publishes now; return the revision at which it did.

        Only what differs is written, in one transaction with the record that describes it. If nothing does, nothing is
        written, and one read shows whether the name is still ours. After a transaction whose answer was lost the record
        is written in any case: each goes by the record before it, so the lost one can't arrive any more.

        Args:
            presence: What it says of itself, without labels and catalog.
            content: What it publishes.
            deadline: When to give up.
            again: Keys of labels to write although they should hold it already.

        Raises:
            SessionLostError: The lease is gone, and all keys with it.
            SupersededError: Another agent took the name over.
            StoreLimitError: Metadata or a catalog is over 64 MiB.
            StoreError: The store failed (then this may or may not have happened; the next call finds out).
        """
        while True:
            if self._is_in_doubt:
                self._reload(deadline)
            before = self.presence
            now, values = self._arrange(presence, content, deadline, again=again)
            if now == before and not values and not self._is_in_doubt:
                held, _ = self._store.get(self._key.presence, timeout=deadline.remaining())
                if held is None or held.lease != self.lease.id:
                    raise self._loss(is_superseded=held is not None)
                return self.revision
            operations: list[Operation] = [Put(name, value, self.lease.id) for name, value in values.items()]
            left = self._records(now, in_one_value=True)
            operations.extend(Delete(name) for name in self._records(before, in_one_value=True) if name not in left)
            # When nothing is left the marker goes too, so that NIXL's peers forget the agent.
            marker_is_put = bool(now.labels) or (self._marker_is_put and not before.labels)
            if self._marker_is_put and not marker_is_put:
                operations.append(Delete(self._key.marker))
            revision = self._transact(now, operations, marker_is_put=marker_is_put, deadline=deadline)
            if revision is not None:
                self._chunks.keep_only(now.contents, deadline)
                return revision

    def repair(self, content: Content, deadline: Deadline) -> None:
        """Put again what somebody else deleted of this session's keys.

        Keys that somebody else has overwritten stay as they are: two that write in turn would never end. Chunks are
        looked after by the next :meth:`write`.

        Raises:
            As :meth:`write`.
        """
        if self._is_in_doubt:
            self._reload(deadline)
        key, lease, presence = self._key, self.lease.id, self.presence
        result = self._store.transact(
            Transaction((), (Get(key.presence), Get(key.agent_prefix, prefix=True), Get(key.catalog))),
            timeout=deadline.remaining(),
        )
        found = {entry.key: entry for read in result.reads for entry in read}
        record = found.get(key.presence)
        if record is not None and record.lease != lease:
            raise self._loss(is_superseded=True)
        contents = self._contents(content)
        expected = {
            name: _value(contents[name], record)
            for name, record in self._records(presence, in_one_value=True).items()
            if name in contents
        }
        puts = [Put(name, value, lease) for name, value in expected.items() if name not in found]
        conditions: list[Condition] = [KeyHasRevision(key.presence, self._record_revision)]
        if record is None:
            conditions = [KeyIsAbsent(key.presence)]
            puts.append(Put(key.presence, encode_presence(presence), lease))
        if self._marker_is_put and key.marker not in found:
            conditions.append(KeyIsAbsent(key.marker))
            puts.append(Put(key.marker, b"", lease))
        if not puts:
            return
        result = self._run(conditions, [*puts], deadline)
        if result.succeeded:
            self.revision = result.revision
            if record is None:
                self._record_revision = result.revision

    def close(self, timeout: float | None) -> None:
        """Give the name up: all keys of the session vanish, the record last, with word that this was meant.

        It takes at most ``timeout`` seconds; if the store does not answer, the keys go with the TTL.
        """
        deadline = Deadline(timeout, self._clock)
        if not self.lease.is_lost and not self._is_in_doubt:
            last = msgspec.structs.replace(self.presence.publishing({}, None), state="withdrawn")
            keys = [*self._records(self.presence, in_one_value=True)]
            keys.extend([self._key.marker] if self._marker_is_put else [])
            with suppress(TrunklineError):  # the word is a kindness: what counts is that the lease ends
                self._store.transact(
                    Transaction(
                        (KeyHasLease(self._key.presence, self.lease.id),),
                        (
                            *map(Delete, keys),
                            Put(self._key.presence, encode_presence(last), self.lease.id),
                        ),
                    ),
                    timeout=deadline.remaining(),
                )
        self.lease.close(deadline.remaining())

    @property
    def keys(self) -> set[str]:
        """The keys that it put and did not take back, but for chunks."""
        keys = {*self._records(self.presence, in_one_value=True), self._key.presence}
        if self._marker_is_put:
            keys.add(self._key.marker)
        return keys

    def _label_key(self, label: str) -> MetadataKey:
        return MetadataKey(self._key.namespace, self._key.agent, label)

    def _contents(self, content: Content) -> dict[str, bytes]:
        """Return contents by the key that stands for them."""
        catalog = {} if content.catalog is None else {self._key.catalog: content.catalog}
        return {**{str(self._label_key(label)): value for label, value in content.labels.items()}, **catalog}

    def _records(self, presence: Presence, *, in_one_value: bool = False) -> dict[str, ContentRecord]:
        """Return the records of contents by the key that stands for them: of all, or of those whose key is put.

        That is the key of every label, for NIXL's agents, and the catalog's unless it lies in chunks.
        """
        records: dict[str, ContentRecord] = {
            str(self._label_key(label)): record for label, record in presence.labels.items()
        }
        if presence.catalog is not None and not (in_one_value and presence.catalog.chunks is not None):
            records[self._key.catalog] = presence.catalog
        return records

    def _arrange(
        self,
        presence: Presence,
        content: Content,
        deadline: Deadline,
        *,
        is_claimed: bool = True,
        again: Collection[str] = (),
    ) -> tuple[Presence, dict[str, bytes]]:
        """Return the record that describes the content, and what has to be put along with it, by key.

        What is too large for that is written here, in chunks. What stayed the same keeps its generation, and stays
        where it is, unless it is not all there.

        Args:
            presence: What the agent says of itself, without labels and catalog.
            content: What it publishes.
            deadline: When to give up.
            is_claimed: Whether the session holds the name already; else nothing is there yet.
            again: Keys to put although they should be there already.
        """
        contents, known = self._contents(content), self._records(self.presence)
        same = {name: known[name] for name in contents if name in known and known[name].describes(contents[name])}
        whole = self._chunks.intact(same.values(), deadline) if is_claimed else set()
        kept = {
            name: record
            for name, record in same.items()
            if is_claimed and (record.chunks is None or record.chunks.directory in whole)
        }
        fresh = {name: value for name, value in contents.items() if name not in kept}
        room = MAX_TRANSACTION_SIZE - len(encode_presence(presence))
        put = partial(self._put_chunk, is_claimed=is_claimed, deadline=deadline)
        chunks = {name: self._chunks.write(fresh[name], put) for name in choose_chunked(fresh, room)}
        generation = self.generation + 1
        labels: dict[str, LabelRecord] = {}
        for label, value in content.labels.items():
            name = str(self._label_key(label))
            if name in same:
                number = self.presence.labels[label].generation
            else:
                number = self.generation = generation
            record = kept.get(name) or content_record(value)
            labels[label] = LabelRecord(record.size, record.sha256, number, chunks=chunks.get(name, record.chunks))
        catalog = None
        if content.catalog is not None:
            catalog = kept.get(self._key.catalog) or content_record(content.catalog)
            catalog = msgspec.structs.replace(catalog, chunks=chunks.get(self._key.catalog, catalog.chunks))
        now = presence.publishing(labels, catalog)
        values = {
            name: _value(contents[name], record)
            for name, record in self._records(now, in_one_value=True).items()
            if name in fresh or name in again
        }
        return now, values

    def _put_chunk(self, name: str, value: bytes, *, is_claimed: bool, deadline: Deadline) -> None:
        # As long as the name is not claimed there is no record to guard by; then nobody but us knows the key.
        condition = KeyHasLease(self._key.presence, self.lease.id) if is_claimed else KeyIsAbsent(name)
        result = self._run([condition], [Put(name, value, self.lease.id)], deadline)
        if is_claimed and not result.succeeded:
            raise self._loss(is_superseded=bool(result.reads[0]))

    def _transact(
        self, presence: Presence, operations: list[Operation], *, marker_is_put: bool, deadline: Deadline
    ) -> int | None:
        """Run the operations together with the new presence record, if the name is still ours; return their revision.

        The marker is put along if it should be there and is not, and never twice: NIXL's peers must see it deleted
        in between. If the record is not the one that all this goes by, as an earlier transaction whose answer was lost
        came late, nothing is done, and None returned.
        """
        lease, record = self.lease.id, encode_presence(presence)
        conditions: list[Condition] = [KeyHasRevision(self._key.presence, self._record_revision)]
        writes = [*operations, Put(self._key.presence, record, lease)]
        if marker_is_put and not self._marker_is_put:
            conditions.append(KeyIsAbsent(self._key.marker))
            writes.append(Put(self._key.marker, b"", lease))
        self._is_in_doubt = True
        result = self._run(conditions, writes, deadline)
        revision = result.revision
        if not result.succeeded:
            found = result.reads[0][0] if result.reads[0] else None
            if found is None or found.lease != lease:
                raise self._loss(is_superseded=found is not None)
            if found.mod_revision == self._record_revision:  # the marker is there, and somebody else's: one is enough
                self._marker_is_put = True
                return self._transact(presence, operations, marker_is_put=True, deadline=deadline)
            if found.value != record:
                return None
            revision = found.mod_revision  # an attempt that succeeded and whose answer was lost
        self._is_in_doubt = False
        self.presence = presence
        self._marker_is_put = marker_is_put
        self.revision = self._record_revision = revision
        return revision

    def _run(self, conditions: list[Condition], writes: list[Operation], deadline: Deadline) -> TransactionResult:
        try:
            return self._store.transact(
                Transaction(tuple(conditions), tuple(writes), (Get(self._key.presence),)), timeout=deadline.remaining()
            )
        except StoreRequestError:  # a put on a lease that is gone is refused
            if self._store.time_to_live(self.lease.id, timeout=deadline.remaining()) is not None:
                raise
            raise self._loss(is_superseded=False) from None

    def _reload(self, deadline: Deadline) -> None:
        """Find out whether a transaction whose answer was lost happened. A lost name shows in the next one."""
        record, marker = self._store.transact(
            Transaction((), (Get(self._key.presence), Get(self._key.marker))), timeout=deadline.remaining()
        ).reads
        if record and record[0].lease == self.lease.id:
            self.presence = decode_presence(record[0].value)
            self._marker_is_put = bool(marker)
            self.revision = self._record_revision = record[0].mod_revision

    def _loss(self, *, is_superseded: bool) -> SessionLostError | SupersededError:
        kind = SupersededError if is_superseded else SessionLostError
        why = (
            "another agent took the name over"
            if is_superseded
            else "its keys are gone: the lease ran out or was revoked, or somebody deleted them"
        )
        return kind(
            f"agent {self._key.agent!r} lost its session: {why} ({self._key.presence} in {self._store.url})",
            agent=self._key.agent,
            key=self._key.presence,
            lease=self.lease.id,
        )


def _value(content: bytes, record: ContentRecord) -> bytes:
    """Return what lies under the key of a content: itself, or of one in chunks what NIXL's agents can use of it."""
    if record.chunks is None:
        return content
    try:
        return without_sections(content)
    except MetadataDecodeError:  # it is not NIXL's, so they can't use anything of it
        return b""
