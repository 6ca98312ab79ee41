"""What workers write: small JSON for what people may look at, MessagePack for what passes between workers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from trunkline.coordination.key import MAX_NUMBER, MAX_WORKERS
from trunkline.errors import ConfigurationError, MetadataDecodeError
from trunkline.metadata.presence import ProcessRecord

INLINE_SIZE = 128 << 10
"""Bytes of a value that go with the key that announces it; larger ones are chunked."""

MAX_CONTENT_SIZE = 64 << 20
"""Bytes of one encoded value, or of all values of one collective together."""

CHUNK_SIZE = 512 << 10
"""Bytes of a chunk."""

MAX_RECORD_SIZE = INLINE_SIZE + 4096
"""Bytes of anything that is read here."""

MAX_REASON = 1000
"""Characters of why a worker gave up."""

Token: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{32}\\Z")]
_Number: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
_Lease: TypeAlias = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class RunRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run of a group.

    Attributes:
        token: Its own.
        size: How many workers it has.
        founder: The lease on which this record hangs.
        members: The workers' leases by rank, once all are there; from then on nobody joins.
    """

    token: Token
    size: Annotated[int, Meta(ge=1, le=MAX_WORKERS)]
    founder: _Lease
    members: Annotated[tuple[_Lease, ...], Meta(max_length=MAX_WORKERS)] = ()


class SeatRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A worker.

    Attributes:
        process: Where it lives.
        state: ``left`` is its last word before its keys vanish.
    """

    process: ProcessRecord
    state: Literal["here", "left"] = "here"

    @property
    def place(self) -> str:
        """Where it lives, for messages."""
        return f"pid {self.process.pid} on {self.process.host}" if self.process.pid else "an unknown process"


class Parcel(msgspec.Struct, frozen=True, array_like=True):
    """What a worker brings to a collective, what a collective ends with, or a message.

    Attributes:
        number: The collective's, counted for each set of workers; a message's, counted for each pair.
        call: What is being done, so that workers who do different things find out.
        content: The value, encoded, if it is small and there is one.
        size: Bytes of a large one, which lies in chunks; else 0.
        error: Why a collective failed for all who took part.
    """

    number: _Number
    call: Annotated[str, Meta(max_length=80)]
    content: bytes = b""
    size: Annotated[int, Meta(ge=0, le=MAX_CONTENT_SIZE)] = 0
    error: Annotated[str, Meta(max_length=2000)] = ""


_json = msgspec.json.Encoder()
_packer = msgspec.msgpack.Encoder()
_runs = msgspec.json.Decoder(RunRecord)
_seats = msgspec.json.Decoder(SeatRecord)
_parcels = msgspec.msgpack.Decoder(Parcel)
_values: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()
_numbers = msgspec.msgpack.Decoder(int | float)


def encode_record(record: RunRecord | SeatRecord) -> bytes:
    """Return a record as JSON."""
    return _json.encode(record)


def encode_parcel(parcel: Parcel) -> bytes:
    """Return a parcel as MessagePack."""
    return _packer.encode(parcel)


def decode_run(key: str, data: bytes) -> RunRecord:
    """Return the record of a run.

    Raises:
        MetadataDecodeError: It is none.
    """
    record: RunRecord = _decode(_runs, key, data)
    if record.members and len(record.members) != record.size:
        raise MetadataDecodeError(
            f"{key} names {len(record.members)} members of a group of {record.size}", field="members", key=key
        )
    return record


def decode_seat(key: str, data: bytes) -> SeatRecord:
    """Return the record of a worker; one of whom nothing is known if it is none."""
    try:
        record: SeatRecord = _decode(_seats, key, data)
    except MetadataDecodeError:
        return SeatRecord(ProcessRecord())
    return record


def decode_parcel(key: str, data: bytes) -> Parcel:
    """Return a parcel.

    Raises:
        MetadataDecodeError: It is none.
    """
    parcel: Parcel = _decode(_parcels, key, data)
    return parcel


def encode_value(value: object, what: str) -> bytes:
    """Return a value encoded.

    Args:
        value: A number, text, bytes, or what JSON has.
        what: What is done with it, for messages.

    Raises:
        ConfigurationError: It is something else, an integer beyond 64 bits, or over 64 MiB.
    """
    try:
        data = _packer.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigurationError(
            f"{what}: a {type(value).__name__} that can't be sent ({error}): numbers up to 64 bits, text, bytes, None, "
            "and lists and dicts of these can"
        ) from error
    if len(data) > MAX_CONTENT_SIZE:
        raise ConfigurationError(
            f"{what}: {len(data)} bytes; at most {MAX_CONTENT_SIZE} can be sent", size=len(data), limit=MAX_CONTENT_SIZE
        )
    return data


def decode_value(data: bytes, what: str = "a value") -> Any:
    """Return what :func:`encode_value` encoded; tuples have become lists.

    Raises:
        MetadataDecodeError: It is no value.
    """
    return _decode(_values, what, data, limit=MAX_CONTENT_SIZE)


def decode_number(data: bytes, what: str) -> int | float:
    """Return a number that :func:`encode_value` encoded.

    Raises:
        MetadataDecodeError: It is no number.
    """
    number: int | float = _decode(_numbers, what, data)
    return number


def pack_list(values: list[bytes]) -> bytes:
    """Return encoded values as the encoding of their list."""
    return _packer.encode([msgspec.Raw(value) for value in values])


def _decode(decoder: Any, key: str, data: bytes, *, limit: int = MAX_RECORD_SIZE) -> Any:
    if len(data) > limit:
        raise MetadataDecodeError(f"{key} holds {len(data)} bytes; at most {limit} are read", key=key)
    try:
        return decoder.decode(data)
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        raise MetadataDecodeError(f"{key} does not hold what a worker writes there: {error}", key=key) from error
