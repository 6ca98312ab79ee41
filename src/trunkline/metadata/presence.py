"""The presence record: a small JSON value that says who an agent is and what it published.

The record is rewritten in every transaction that changes what the agent publishes. Fields this version does
not know are kept when it is rewritten. A record whose ``min_reader`` is newer than :data:`FORMAT` decodes to a
:class:`Presence` whose ``is_readable`` is False: it can be listed, but its other fields mean nothing here.

Format 2 adds ``chunks`` to the records of contents. A record that has any is for readers of format 2; others are for
all.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from trunkline.errors import ConfigurationError, MetadataDecodeError

FORMAT = 2
"""The format written, and the newest ``min_reader`` that is understood."""

CHUNKS_FORMAT = 2
"""The ``min_reader`` of records that say that something lies in chunks."""

MAX_PRESENCE_SIZE = 64 * 1024
"""Bytes of an encoded record."""

MAX_LABELS = 64
"""With marker, catalog and presence this stays under the 128 operations of an etcd transaction."""

MAX_CHUNKS = 256
"""Of one content."""

MAX_ATTRIBUTES = 32
MAX_ATTRIBUTE_KEY = 64
"""Characters."""
MAX_ATTRIBUTE_VALUE = 255
"""Characters."""

Sha256: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{64}\\Z")]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
ShortText: TypeAlias = Annotated[str, Meta(max_length=255)]
AttributeKey: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_ATTRIBUTE_KEY)]
AttributeValue: TypeAlias = Annotated[str, Meta(max_length=MAX_ATTRIBUTE_VALUE)]
State: TypeAlias = Literal["ready", "draining", "withdrawn"]


class ChunksRecord(msgspec.Struct, frozen=True):
    """Where the chunks of a content lie: under numbers from 0 on, in a directory that no other content ever has.

    Attributes:
        directory: The last part of the keys' prefix.
        count: How many there are.
    """

    directory: Annotated[str, Meta(pattern="^[0-9a-z-]{1,64}\\Z")]
    count: Annotated[int, Meta(ge=1, le=MAX_CHUNKS)]


class _Content(msgspec.Struct, frozen=True, omit_defaults=True):
    size: Count
    sha256: Sha256


class ContentRecord(_Content, frozen=True, kw_only=True):
    """Size and digest of what is published, whether it lies in one value or in chunks.

    Attributes:
        size: Bytes.
        sha256: Lower-case hexadecimal digest.
        chunks: Its chunks; None for a content that is one value.
    """

    chunks: ChunksRecord | None = None

    def describes(self, content: bytes) -> bool:
        """Return whether this is the record of ``content``."""
        return self.size == len(content) and self.sha256 == sha256(content).hexdigest()


class LabelRecord(ContentRecord, frozen=True):
    """A published label.

    Attributes:
        generation: Counts the agent's publications, so it differs between any two.
    """

    generation: Count


def content_record(content: bytes) -> ContentRecord:
    """Return the record of a content that is one value."""
    return ContentRecord(len(content), sha256(content).hexdigest())


class ProcessRecord(msgspec.Struct, frozen=True):
    """The process of an agent. What a platform does not tell is empty or 0.

    Attributes:
        host: Host name.
        boot_id: The kernel's random identity of this boot; containers of one machine share it.
        pid: Process number, as seen in its own pid namespace.
        pid_namespace: The kernel's name of that namespace (``pid:[4026531836]``).
        started: When the process started, in clock ticks since boot: tells apart processes that reuse a pid.
    """

    host: ShortText = ""
    boot_id: ShortText = ""
    pid: Count = 0
    pid_namespace: ShortText = ""
    started: Count = 0


class _Known(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields this version knows, as they stand in JSON."""

    format: Count
    min_reader: Count
    incarnation: Annotated[str, Meta(pattern="^[0-9a-f]{32}\\Z")]
    process: ProcessRecord = ProcessRecord()
    software: ShortText = ""
    backends: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=32)] = ()
    attributes: Annotated[dict[AttributeKey, AttributeValue], Meta(max_length=MAX_ATTRIBUTES)] = {}
    state: State = "ready"
    ttl: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    opened_at: Annotated[float, Meta(ge=0, le=1e11)] = 0.0
    labels: Annotated[dict[ShortText, LabelRecord], Meta(max_length=MAX_LABELS)] = {}
    catalog: ContentRecord | None = None


class _Version(msgspec.Struct):
    format: Count
    min_reader: Count


# Decoders are made with the module: a type that two threads use for the first time at once crashes in msgspec.
_FIELDS = msgspec.json.Decoder(dict[str, Any])
_VERSION = msgspec.json.Decoder(_Version)
_KNOWN = msgspec.json.Decoder(_Known)


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says about itself. Bounds are checked when it is encoded and decoded.

    Attributes:
        format: The format it is written in.
        min_reader: The oldest format a reader must know to understand it.
        incarnation: 32 hexadecimal digits, new for each agent object; empty if the record is not readable.
        process: Where the agent runs.
        software: Name and version of the writer.
        backends: Names of the agent's backends, at most 32.
        attributes: Free pairs, at most 32, of at most 64 and 255 characters.
        state: ``ready``; ``draining``: going away, don't start anything new; ``withdrawn``: the last word of an agent
            that gives its name up, so that readers can tell it from one that died.
        ttl: Seconds after which the record vanishes if the agent stops refreshing its lease; 0 if it doesn't say.
        opened_at: When the agent was opened, in seconds since 1970 by its machine's clock; 0 if it doesn't say.
        labels: What is published, by label; at most 64.
        catalog: The catalog, where one is published.
        unknown: Fields of the JSON object that this version does not know.
    """

    format: int = FORMAT
    min_reader: int = 1
    incarnation: str
    process: ProcessRecord = ProcessRecord()
    software: str = ""
    backends: tuple[str, ...] = ()
    attributes: dict[str, str] = {}
    state: State = "ready"
    ttl: float = 0.0
    opened_at: float = 0.0
    labels: dict[str, LabelRecord] = {}
    catalog: ContentRecord | None = None
    unknown: dict[str, Any] = {}

    @property
    def is_readable(self) -> bool:
        """Whether this version understands the record."""
        return self.min_reader <= FORMAT

    def publishing(self, labels: dict[str, LabelRecord], catalog: ContentRecord | None) -> Presence:
        """Return the record of the same agent when it publishes this; it says who can read that."""
        told = msgspec.structs.replace(self, labels=labels, catalog=catalog)
        is_chunked = any(content.chunks is not None for content in told.contents)
        return msgspec.structs.replace(told, min_reader=CHUNKS_FORMAT if is_chunked else 1)

    @property
    def contents(self) -> list[ContentRecord]:
        """The records of everything that is published."""
        return [*self.labels.values(), *([] if self.catalog is None else [self.catalog])]

    @property
    def is_published(self) -> bool:
        """Whether there is anything to fetch; of a record that can't be read that is assumed."""
        return not self.is_readable or (bool(self.labels) and self.state != "withdrawn")


def encode_presence(presence: Presence) -> bytes:
    """Return the record as JSON.

    Raises:
        ConfigurationError: A field breaks its bounds, or the whole is over 64 KiB.
    """
    known = _Known(**{name: getattr(presence, name) for name in _Known.__struct_fields__})
    try:
        content = msgspec.json.encode({**presence.unknown, **msgspec.to_builtins(known)})
        _KNOWN.decode(content)  # checks the bounds, which making the object does not
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise ConfigurationError(f"what the agent says about itself can't be published: {error}") from error
    if len(content) > MAX_PRESENCE_SIZE:
        raise ConfigurationError(
            f"what the agent says about itself takes {len(content)} bytes, more than {MAX_PRESENCE_SIZE}: "
            "use fewer or shorter attributes and labels",
            size=len(content),
            limit=MAX_PRESENCE_SIZE,
        )
    return content


def decode_presence(content: bytes) -> Presence:
    """Return the record that ``content`` holds.

    Raises:
        MetadataDecodeError: It is over 64 KiB, no JSON object, or a field is missing or out of bounds
            (the last two only where ``min_reader`` says that this version understands it).
    """
    if len(content) > MAX_PRESENCE_SIZE:
        raise MetadataDecodeError(
            f"presence record of {len(content)} bytes, more than {MAX_PRESENCE_SIZE}", field="presence"
        )
    try:
        fields = _FIELDS.decode(content)
        version = _VERSION.decode(content)
        if version.min_reader > FORMAT:
            return Presence(format=version.format, min_reader=version.min_reader, incarnation="", unknown=fields)
        known = _KNOWN.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MetadataDecodeError(f"bad presence record: {error}", field="presence") from error
    return Presence(
        **{name: getattr(known, name) for name in _Known.__struct_fields__},
        unknown={name: value for name, value in fields.items() if name not in _Known.__struct_fields__},
    )
