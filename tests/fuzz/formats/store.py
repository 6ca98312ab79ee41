"""What lies in a store, under which key."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from tests.fuzz.formats.metadata import CATALOG, METADATA
from tests.fuzz.target import Target, golden, parts, stream

from trunkline.agent.record import record_of_publication
from trunkline.clock import Deadline
from trunkline.coordination.board import Board
from trunkline.coordination.key import GroupKey
from trunkline.coordination.record import (
    Parcel,
    RunRecord,
    SeatRecord,
    decode_value,
    encode_parcel,
    encode_record,
    encode_value,
)
from trunkline.directory.fetch import Fetch
from trunkline.directory.roster import Roster
from trunkline.errors import GroupError, MetadataDecodeError, MetadataError
from trunkline.metadata.key import DEFAULT_NAMESPACE, MetadataKey, agent_of, classify
from trunkline.metadata.presence import (
    ChunksRecord,
    ContentRecord,
    LabelRecord,
    Presence,
    ProcessRecord,
    content_record,
    encode_presence,
)
from trunkline.store.contract import Changed, Entry, Get, Snapshot, TransactionResult

if TYPE_CHECKING:
    from trunkline.store.contract import Transaction


class Values:
    """As much of a store as reading chunks needs: chunk i of any directory."""

    def __init__(self, values: list[bytes]) -> None:
        self._values = values

    def transact(self, transaction: Transaction, *, timeout: float | None) -> TransactionResult:
        reads = tuple(self._read(operation.key) for operation in transaction.then if isinstance(operation, Get))
        return TransactionResult(succeeded=True, revision=9, reads=reads)

    def _read(self, key: str) -> tuple[Entry, ...]:
        number = int(key.rpartition("/")[2])
        return (Entry(key, self._values[number], 1, 1),) if number < len(self._values) else ()


KEY = MetadataKey(DEFAULT_NAMESPACE, "a")


def publication(data: bytes) -> None:
    """Fetch and decode what an agent published: record, metadata, catalog, and the chunks of either."""
    record, content, names, *chunks = [*parts(data), b"", b"", b""]
    values: Any = Values(chunks)
    entries = {
        key: Entry(key, value, 1, 1)
        for key, value in ((KEY.presence, record), (str(KEY), content), (KEY.catalog, names))
        if value
    }
    found = Fetch(values, (KEY,), (), values).look(entries, 9, Deadline(1))
    if not isinstance(found, str):
        record_of_publication(found)


def published(*, is_chunked: bool) -> bytes:
    label, names = content_record(METADATA), content_record(CATALOG)
    chunks = [METADATA[:1000], METADATA[1000:2000], METADATA[2000:]] if is_chunked else []
    where = ChunksRecord("0" * 32, len(chunks)) if is_chunked else None
    record = Presence(
        incarnation="0" * 32,
        process=ProcessRecord("host", "boot", 7, "pid:[1]", 9),
        backends=("UCX",),
        attributes={"role": "decode"},
        ttl=30.0,
    ).publishing(
        {"metadata": LabelRecord(label.size, label.sha256, chunks=where, generation=1)},
        ContentRecord(names.size, names.sha256),
    )
    return stream(encode_presence(record), b"-" if is_chunked else METADATA, CATALOG, *chunks)


def roster(data: bytes) -> None:
    """Keys and values that anybody may have put under the namespace, one by one, then all at once."""
    payloads = parts(data)
    entries = [
        Entry(key.decode("utf-8", "surrogateescape"), value, at, at)
        for at, (key, value) in enumerate(zip(payloads[::2], payloads[1::2], strict=False), 1)
    ]
    told = Roster(DEFAULT_NAMESPACE)
    for entry in entries:
        told.apply(f"{DEFAULT_NAMESPACE}/", Snapshot((entry,), entry.mod_revision), 0.0)
    told.apply(f"{DEFAULT_NAMESPACE}/", Snapshot(tuple(entries), len(entries)), 1.0)
    told.tick(100.0)
    told.view((), 100.0)


def group_board(data: bytes) -> None:
    """Keys and values that anybody may have put under a group, one by one, then all at once."""
    payloads = parts(data)
    board = Board(RUN, 0, 10)
    entries = [
        Entry(key.decode("utf-8", "surrogateescape"), value, at, at, lease)
        for at, (lease, key, value) in enumerate(
            zip(itertools.cycle((10, 10, 11)), payloads[::2], payloads[1::2], strict=False), 1
        )
    ]
    for entry in entries:
        board.take_run(Changed((entry,), (), entry.mod_revision))
        board.take_inbox(Changed((entry,), (), entry.mod_revision))
    snapshot = Snapshot(tuple(entries), len(entries))
    board.take_run(snapshot)
    board.take_inbox(snapshot)
    board.check((0, 1))
    board.message(1, 0)
    if board.members:
        board.arrival(0b11, 1, 0)
        board.release(0b11, 0, 0)
    board.take_run(Changed((), tuple(entry.key for entry in entries), len(entries) + 1))
    board.take_inbox(Changed((), tuple(entry.key for entry in entries), len(entries) + 1))


def group_value(data: bytes) -> None:
    """What one worker sent to another."""
    decode_value(data, "value")


def keys(data: bytes) -> None:
    key = data.decode("utf-8", "surrogateescape")
    found = MetadataKey.parse(DEFAULT_NAMESPACE, key)
    assert found is None or (str(found) == key and agent_of(DEFAULT_NAMESPACE, key) == found.agent)
    kind = classify(DEFAULT_NAMESPACE, key)
    assert found is None or kind == ("label", found.agent, found.label)


RUN = GroupKey("g").of_run("0" * 32)
_SEAT = encode_record(SeatRecord(ProcessRecord("node-7", "boot", 4711)))
_PARCEL = encode_parcel(Parcel(0, "allgather", b"x" * 40))
GROUPS = [
    stream(
        *(RUN.group.run.encode(), encode_record(RunRecord(RUN.token, 2, 10, members))),
        *(RUN.seat(0).encode(), _SEAT),
        *(RUN.seat(1).encode(), _SEAT),
        *(RUN.release(0b11).encode(), _PARCEL),
        *(RUN.message(0, 1, 0).encode(), _PARCEL),
        *(RUN.arrival(0, 0b11, 1).encode(), _PARCEL),
    )
    for members in ((), (10, 11))
]
KEYS = [each.encode() for each in (str(KEY), KEY.marker, KEY.presence, KEY.catalog, KEY.chunk("0" * 32, 3))]

TARGETS = {
    "publication": Target(publication, [published(is_chunked=False), published(is_chunked=True)], (MetadataError,)),
    "roster": Target(
        roster, [stream(*(each for key in KEYS for each in (key, record))) for record in golden("presence")], ()
    ),
    "key": Target(keys, KEYS, ()),
    "group": Target(group_board, GROUPS, (MetadataDecodeError, GroupError)),
    "group-value": Target(
        group_value, [encode_value({"a": [1, -2.5, b"x", None, True], "b": "c" * 40}, "test")], cost=64
    ),
}
