"""The card: everything a peer needs, in one value that the application carries itself.

    card = "trunkline-card|" + MessagePack map

Fields a reader does not know are ignored; a card whose ``min_reader`` is newer than :data:`FORMAT` is refused.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from trunkline.errors import ConfigurationError, MetadataDecodeError
from trunkline.metadata import catalog as catalog_module
from trunkline.metadata import codec
from trunkline.metadata.key import is_agent_name

MAGIC = b"trunkline-card|"

FORMAT = 1
"""The format written, and the newest ``min_reader`` that is understood."""

MAX_BYTES = codec.MAX_BYTES + catalog_module.MAX_BYTES + (64 << 10)
"""The largest card that is read: the largest metadata and catalog, and 64 KiB for the rest."""

AttributeKey: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
AttributeValue: TypeAlias = Annotated[str, Meta(max_length=255)]


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent hands to a peer.

    Attributes:
        agent: The agent's name.
        incarnation: 32 hexadecimal digits, new for each agent object.
        metadata: Encoded metadata (see ``codec``).
        catalog: Encoded catalog, or None.
        attributes: Free pairs, at most 32, of at most 64 and 255 characters.
    """

    agent: str
    incarnation: Annotated[str, Meta(pattern="^[0-9a-f]{32}\\Z")]
    metadata: Annotated[bytes, Meta(max_length=codec.MAX_BYTES)]
    catalog: Annotated[bytes, Meta(max_length=catalog_module.MAX_BYTES)] | None = None
    attributes: Annotated[dict[AttributeKey, AttributeValue], Meta(max_length=32)] = {}


class _Record(Card, frozen=True, kw_only=True):
    format: Annotated[int, Meta(ge=0)]
    min_reader: Annotated[int, Meta(ge=0)]


class _Version(msgspec.Struct):
    min_reader: Annotated[int, Meta(ge=0)]


# Made with the module, as those of presence records are.
_VERSION = msgspec.msgpack.Decoder(_Version)
_RECORD = msgspec.msgpack.Decoder(_Record)


def is_card(data: bytes) -> bool:
    """Return whether the bytes start as a card does; raw metadata never does."""
    return data.startswith(MAGIC)


def encode_card(card: Card) -> bytes:
    """Return the card as bytes.

    Raises:
        ConfigurationError: It is not one that :func:`decode_card` would take; the message says why.
    """
    fields = {name: getattr(card, name) for name in Card.__struct_fields__}
    try:
        data = MAGIC + msgspec.msgpack.encode(_Record(**fields, format=FORMAT, min_reader=FORMAT))
        decode_card(data)
    except (MetadataDecodeError, UnicodeEncodeError) as error:
        raise ConfigurationError(f"agent {card.agent!r} can't have such a card: {error}") from error
    return data


def decode_card(data: bytes) -> Card:
    """Return the card that :func:`encode_card` wrote. Its metadata and catalog are not decoded.

    Raises:
        MetadataDecodeError: No card, larger than ``MAX_BYTES``, for newer readers only, or a field that is missing or
            out of bounds.
    """
    if len(data) > MAX_BYTES:
        raise MetadataDecodeError(f"card of {len(data)} bytes: at most {MAX_BYTES} are read", field="size")
    if not is_card(data):
        raise MetadataDecodeError(f"no card: it does not start with {MAGIC!r}", field="magic")
    content = memoryview(data)[len(MAGIC) :]
    try:
        version = _VERSION.decode(content)
        if version.min_reader > FORMAT:
            raise MetadataDecodeError(
                f"the card is for readers of format {version.min_reader} and up; this is {FORMAT}: update trunkline",
                field="min_reader",
            )
        record = _RECORD.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MetadataDecodeError(f"bad card: {error}", field="card", offset=len(MAGIC)) from error
    if not is_agent_name(record.agent):
        raise MetadataDecodeError(f"bad card: no agent can be called {record.agent[:300]!r}", field="agent")
    return Card(**{name: getattr(record, name) for name in Card.__struct_fields__})
