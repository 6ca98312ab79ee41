"""What comes over sockets, and what tickets and files say."""

from __future__ import annotations

import json

from tests.fuzz.formats.metadata import CARD
from tests.fuzz.target import BLOBS, Target, golden, stream

from trunkline.agent.record import record_of_bytes
from trunkline.errors import MetadataDecodeError, MetadataMismatchError, TicketError
from trunkline.exchange.address import Address
from trunkline.exchange.frame import FrameReader, pack_frame
from trunkline.exchange.nixl_message import INVALIDATE, LOAD, SEND, NixlMessage, agent_name, decode_message
from trunkline.offer.handshake import MAX_REQUEST, OfferSide, TakerSide, prove
from trunkline.offer.manifest import Manifest, decode_manifest
from trunkline.offer.safetensors import parse_header
from trunkline.offer.ticket import Ticket, parse_ticket

MAX_FRAME = 1 << 20
SECRET, NONCE = b"s" * 16, b"n" * 32


def frames(data: bytes) -> list[bytes]:
    """Return the payloads of a stream."""
    reader = FrameReader(MAX_FRAME)
    reader.feed(data)
    return list(iter(reader.take, None))


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


TARGETS = {
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
}
