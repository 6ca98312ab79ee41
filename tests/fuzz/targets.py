"""Everything that arrives as bytes: by format, valid inputs and what reads them.

Each reader returns or raises one of the errors its format names; anything else is a bug. Where there is one way to
write a value, what was accepted must be written as it was read.
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tests.unit.backend.object.test_failure import REFUSED, SLOW_DOWN

from trunkline.agent.record import record_of_bytes, record_of_publication
from trunkline.backend.plugins.cma.greeting import Greeting, decode_greeting, decode_info, encode_greeting, encode_info
from trunkline.backend.plugins.object.failure import LONGEST, Redaction, explain
from trunkline.backend.plugins.ucx.address import check_worker_address, read_layout
from trunkline.backend.plugins.ucx.library import load_native
from trunkline.backend.plugins.ucx.remote_key import check_remote_keys
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
from trunkline.errors import (
    ConfigurationError,
    GroupError,
    MetadataDecodeError,
    MetadataError,
    MetadataMismatchError,
    TicketError,
    TrunklineError,
)
from trunkline.exchange.address import Address
from trunkline.exchange.frame import FrameReader, pack_frame
from trunkline.exchange.nixl_message import INVALIDATE, LOAD, SEND, NixlMessage, agent_name, decode_message
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.card import Card, decode_card, encode_card
from trunkline.metadata.catalog import Catalog, TensorEntry, decode_catalog, encode_catalog
from trunkline.metadata.codec import decode, encode
from trunkline.metadata.head import without_sections
from trunkline.metadata.key import DEFAULT_NAMESPACE, MetadataKey, agent_of, classify
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata
from trunkline.metadata.notification import decode_notification, encode_notification
from trunkline.metadata.presence import (
    ChunksRecord,
    ContentRecord,
    LabelRecord,
    Presence,
    ProcessRecord,
    content_record,
    decode_presence,
    encode_presence,
)
from trunkline.nixl.descriptor_list import decode_list, nixlRegDList, nixlXferDList
from trunkline.nixl.enumeration import nixl_mem_t
from trunkline.offer.handshake import MAX_REQUEST, OfferSide, TakerSide, prove
from trunkline.offer.manifest import Manifest, decode_manifest
from trunkline.offer.safetensors import parse_header
from trunkline.offer.ticket import Ticket, parse_ticket
from trunkline.store.contract import Changed, Entry, Get, Snapshot, TransactionResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.store.contract import Transaction

DATA = Path(__file__).parents[1] / "data"
BLOBS = [path.read_bytes() for path in sorted((DATA / "nixl-blobs").glob("*.bin"))]
MAX_FRAME = 1 << 20
SECRET, NONCE = b"s" * 16, b"n" * 32


@dataclass(frozen=True)
class Target:
    """One format.

    Attributes:
        read: Takes any bytes.
        seeds: Valid inputs.
        errors: What ``read`` may raise.
        cost: Bytes of arrays and objects that one byte of input may cost at its peak.
    """

    read: Callable[[bytes], object]
    seeds: list[bytes]
    errors: tuple[type[TrunklineError], ...] = field(default=(MetadataDecodeError,))
    cost: int = 4


def golden(stem: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((DATA / "golden").glob(f"{stem}*"))]


def frames(data: bytes) -> list[bytes]:
    """Return the payloads of a stream."""
    reader = FrameReader(MAX_FRAME)
    reader.feed(data)
    return list(iter(reader.take, None))


def parts(data: bytes) -> list[bytes]:
    """Divide an input for a reader that takes several values, where lengths are the test's own and never wrong."""
    found = []
    while data:
        end = 8 + int.from_bytes(data[:8], "little")
        found.append(data[8:end])
        data = data[end:]
    return found


def stream(*payloads: bytes) -> bytes:
    return b"".join(map(pack_frame, payloads))


# Metadata and what NIXL's container holds.


def various() -> AgentMetadata:
    """Metadata with several backends, kinds and sizes of keys."""
    rows = np.array([(4096 * row, 4096, row % 3) for row in range(40)], dtype=np.uint64)
    keys = RemoteKeys.of([bytes(row % 4) for row in range(40)])
    owners = (("UCX", MemoryKind.DRAM), ("UCX", MemoryKind.VRAM), ("OBJ", MemoryKind.OBJECT))
    return AgentMetadata("a", {"UCX": b"x" * 30, "OBJ": b"y"}, tuple(SectionMetadata(*it, rows, keys) for it in owners))


METADATA = encode(various())
SMALL_BLOBS = [blob for blob in BLOBS if len(blob) < 1000]


def metadata(data: bytes) -> None:
    assert encode(decode(data)) == data


def head(data: bytes) -> None:
    assert not decode(without_sections(data)).sections


def notification(data: bytes) -> None:
    assert encode_notification(*decode_notification(data)) == data


def descriptors(data: bytes) -> None:
    assert decode_list(data).to_bytes() == data


def lists() -> list[bytes]:
    rows = [(4096 * row, 4096, row % 3) for row in range(1, 9)]
    tagged = [(*row, b"meta" * (row[2] % 2)) for row in rows]
    return [
        nixlXferDList(nixl_mem_t.DRAM_SEG, rows).to_bytes(),
        nixlRegDList(nixl_mem_t.VRAM_SEG, tagged).to_bytes(),
        nixlRegDList(nixl_mem_t.DRAM_SEG).to_bytes(),
    ]


# What an agent says of itself in JSON and MessagePack.

CATALOG = encode_catalog(
    Catalog(
        tuple(TensorEntry(f"kv/{row}", MemoryKind.DRAM, "BF16", (4, 16), 4096 * row, 128, 0) for row in range(8)),
        {"kv": tuple(f"kv/{row}" for row in range(8))},
    )
)
CARD = encode_card(
    Card(agent="a", incarnation="0" * 32, metadata=METADATA, catalog=CATALOG, attributes={"role": "decode"})
)


def catalog(data: bytes) -> None:
    found = decode_catalog(data)
    assert decode_catalog(encode_catalog(found)) == found


def card(data: bytes) -> None:
    found = decode_card(data)
    assert decode_card(encode_card(found)) == found
    record_of_bytes(data)


def presence(data: bytes) -> None:
    found = decode_presence(data)
    if found.is_readable:
        assert decode_presence(encode_presence(found)) == found


# What lies in a store, under which key.


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

# Sockets and tickets.


def listener(data: bytes) -> None:
    """Read frames as NIXL's listener does, as far as the agent."""
    payloads = frames(data)
    assert data.startswith(stream(*payloads))
    for payload in payloads:
        message = decode_message(payload)
        assert message.encode() == payload
        if message.verb == LOAD:
            record_of_bytes(message.body)
        elif message.verb == INVALIDATE:
            agent_name(message.body)


def offer(data: bytes) -> None:
    """Play an offer whose nonce is known, so that seeds get to the end."""
    reader, side = FrameReader(MAX_REQUEST), OfferSide(SECRET)
    reader.feed(data)
    while (payload := reader.take()) is not None:
        if side.receive(payload) is None:
            side.give(CARD)
        side._offer_nonce = NONCE


def taker(data: bytes) -> None:
    """Play a taker whose nonce is known."""
    side = TakerSide(SECRET, "there")
    side._taker_nonce = NONCE
    here, answer = [*frames(data), b"", b""][:2]
    side.prove(here)
    record_of_bytes(side.card(answer))


def proof(verb: bytes, content: bytes = b"") -> bytes:
    return prove(SECRET, verb, NONCE, NONCE, content)


OFFER = stream(b"HELO" + NONCE, b"TAKE" + proof(b"TAKE"), b"DONE" + proof(b"DONE"))
TAKERS = [
    stream(b"HERE" + NONCE + proof(b"HERE"), answer)
    for answer in (b"CARD" + proof(b"CARD", CARD) + CARD, b"BUSY", b"USED")
]


def ticket(data: bytes) -> None:
    found = parse_ticket(data.decode("utf-8", "surrogateescape"))
    assert parse_ticket(str(found)) == found


def manifest(data: bytes) -> None:
    found = decode_manifest(bytearray(data))
    assert isinstance(found, Manifest)


def safetensors(data: bytes) -> None:
    assert all(each.start <= each.end <= len(data) for each in parse_header(data))


def tensors() -> bytes:
    entries = {
        f"w{row}": {"dtype": "F32", "shape": [2, 4], "data_offsets": [32 * row, 32 * row + 32]} for row in (0, 1)
    }
    header = json.dumps({"__metadata__": {"format": "pt"}} | entries).encode()
    return pack_frame(header) + bytes(64)


# What a backend is given. UCX itself gets mutants in tests/fault/ucx.


def cma_info(data: bytes) -> None:
    key = decode_info("peer", data)
    assert key is None or encode_info(key) == data


def cma_greeting(data: bytes) -> None:
    found = decode_greeting(data)
    assert found is None or encode_greeting(found) == data


def path_mode(data: bytes) -> None:
    """Take apart the name of a segment of NIXL's: a path and how to open it, or a mere name."""
    from trunkline.backend.file import PathMode

    text = data.decode("utf-8", "surrogateescape")
    found = PathMode.parse(text)
    assert found is None or (found.path and text.partition(":")[2] == found.path and found.flags >= 0)


def store_answer(data: bytes) -> None:
    """Put what an object store answered into words."""
    said = explain(OSError(data.decode("utf-8", "replace")), Redaction({"secret_access_key": "TopSecret"}, {}))
    assert "TopSecret" not in said
    assert len(said) <= LONGEST
    assert "\n" not in said


def ucx_of(blob: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the worker addresses and remote keys in NIXL's own metadata."""
    found = decode(blob)
    return list(found.connections.values()), [key for section in found.sections for key in section.keys][:3]


ADDRESSES, REMOTE_KEYS = (sorted({each for blob in BLOBS for each in ucx_of(blob)[which]}) for which in (0, 1))


def worker_address(data: bytes) -> None:
    read_layout("peer", data)
    check_worker_address("peer", data, read_layout("us", ADDRESSES[0]))


def remote_key(data: bytes) -> None:
    check_remote_keys("peer", MemoryKind.DRAM, RemoteKeys.of([data, data]))


TARGETS = {
    "metadata": Target(metadata, [*SMALL_BLOBS, METADATA]),
    "metadata-head": Target(head, [*SMALL_BLOBS, METADATA]),
    "notification": Target(notification, [encode_notification("agent", b"message"), encode_notification("a", b"")]),
    "descriptor-list": Target(descriptors, lists()),
    "catalog": Target(catalog, [CATALOG, *golden("catalog")], cost=16),
    "card": Target(card, [CARD, *golden("card")], (MetadataDecodeError, MetadataMismatchError)),
    "presence": Target(presence, golden("presence"), (MetadataDecodeError, ConfigurationError)),
    "publication": Target(publication, [published(is_chunked=False), published(is_chunked=True)], (MetadataError,)),
    "roster": Target(
        roster, [stream(*(each for key in KEYS for each in (key, record))) for record in golden("presence")], ()
    ),
    "key": Target(keys, KEYS, ()),
    "group": Target(group_board, GROUPS, (MetadataDecodeError, GroupError)),
    "group-value": Target(
        group_value, [encode_value({"a": [1, -2.5, b"x", None, True], "b": "c" * 40}, "test")], cost=64
    ),
    "listener": Target(
        listener,
        [
            stream(NixlMessage(LOAD, BLOBS[0]).encode(), NixlMessage(SEND).encode()),
            stream(NixlMessage(LOAD, CARD).encode(), NixlMessage(INVALIDATE, b"agent").encode()),
        ],
        (MetadataDecodeError, MetadataMismatchError),
    ),
    "offer": Target(offer, [OFFER], (MetadataDecodeError, TicketError)),
    "taker": Target(taker, TAKERS, (MetadataDecodeError, MetadataMismatchError, TicketError)),
    "ticket": Target(
        ticket,
        [str(Ticket(Address(host, 4000), SECRET, NONCE)).encode() for host in ("127.0.0.1", "::1")],
        (TicketError,),
        cost=16,
    ),
    "manifest": Target(manifest, golden("manifest")),
    "safetensors": Target(safetensors, [tensors()]),
    "worker-address": Target(worker_address, ADDRESSES),
    "cma-info": Target(cma_info, [encode_info(NONCE[:16])]),
    "cma-greeting": Target(cma_greeting, [encode_greeting(Greeting(2**47 - 4096, NONCE[:16], "decode-0"))], ()),
    "store-answer": Target(
        store_answer,
        [text.encode() for text in (SLOW_DOWN, REFUSED, "TopSecret of http://h/b?sig=TopSecret is not known")],
        (),
        cost=64,
    ),
}

if sys.platform == "linux":  # where the native module is
    load_native()
    TARGETS["remote-key"] = Target(remote_key, REMOTE_KEYS)
    TARGETS["path-mode"] = Target(
        path_mode, [b"rw,direct,create:/mnt/nvme/cache", b"ro:/a", b"/just/a:name"], (), cost=32
    )


def try_bytes(target: Target, data: bytes) -> bool:
    """Return whether the bytes were accepted; an error that the format does not name gets through."""
    try:
        target.read(data)
    except target.errors as error:
        if isinstance(error, MetadataDecodeError) and not 0 <= error.offset <= len(data):
            raise AssertionError(f"the error names an impossible offset: {error!r}") from error
        return False
    return True
