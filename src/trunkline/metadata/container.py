"""NIXL's container, which it calls nixlSerDes: a magic, then fields in an order that reader and writer know.

    container = "nixlSerDes|" field*
    field     = tag, u64 length, value, "|"         (little-endian; a tag is ASCII, may be empty and has no end mark)

The format was gathered from NIXL 1.5.1 (its own blobs lie in tests/data/nixl-blobs).
"""

from __future__ import annotations

import struct

from trunkline.errors import MetadataDecodeError

MAGIC = b"nixlSerDes|"
TERMINATOR = b"|"

_U64 = struct.Struct("<Q")


def pack_field(tag: bytes, value: bytes) -> bytes:
    """Return one field."""
    return b"".join((tag, _U64.pack(len(value)), value, TERMINATOR))


def pack_number(tag: bytes, value: int) -> bytes:
    """Return one field that holds an unsigned 64-bit integer."""
    return pack_field(tag, _U64.pack(value))


class ContainerReader:
    """Reads fields one after the other. Every fault is a MetadataDecodeError that names field and offset.

    Args:
        data: The container; read by offset, not copied.
        what: What it holds, for messages.

    Attributes:
        data: The container.
        offset: Where the next field starts, in bytes.
    """

    __slots__ = ("_what", "data", "offset")

    def __init__(self, data: bytes, what: str) -> None:
        self._what = what
        self.data = data
        self.offset = 0
        if not data.startswith(MAGIC):
            raise self.fault("magic", 0, f"does not start with {MAGIC!r}")
        self.offset = len(MAGIC)

    def read(self, tag: bytes, *, max_size: int, min_size: int = 1) -> bytes:
        """Return the value of the next field, which must have this tag and a size within the bounds."""
        field = tag.decode() or "untagged"
        start = self.offset
        at = start + len(tag)
        if self.data[start:at] != tag:
            raise self.fault(field, start, f"found {self.data[start:at]!r}")
        if len(self.data) - at < _U64.size:
            raise self.fault(field, start, "the data ends in the length")
        (size,) = _U64.unpack_from(self.data, at)
        at += _U64.size
        if not min_size <= size <= max_size:
            raise self.fault(field, start, f"a value of {size} bytes, where {min_size} to {max_size} are allowed")
        if len(self.data) - at <= size:
            raise self.fault(field, start, f"a value of {size} bytes, but only {len(self.data) - at} bytes follow")
        if self.data[at + size : at + size + 1] != TERMINATOR:
            raise self.fault(field, at + size, "the value is not followed by '|'")
        self.offset = at + size + 1
        return self.data[at : at + size]

    def read_constant(self, tag: bytes, value: bytes) -> None:
        """Check that the next field has this tag and this value."""
        start = self.offset
        found = self.read(tag, min_size=len(value), max_size=len(value))
        if found != value:
            raise self.fault(tag.decode() or "untagged", start, f"found {found!r} where {value!r} belongs")

    def read_number(self, tag: bytes, *, max_value: int) -> int:
        """Return the unsigned 64-bit integer in the next field."""
        start = self.offset
        (value,) = _U64.unpack(self.read(tag, min_size=_U64.size, max_size=_U64.size))
        if value > max_value:
            raise self.fault(tag.decode(), start, f"{value} is more than the {max_value} allowed or possible here")
        return int(value)

    def read_text(self, tag: bytes, *, max_size: int) -> str:
        """Return the UTF-8 text in the next field."""
        start = self.offset
        value = self.read(tag, max_size=max_size)
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise self.fault(tag.decode(), start, f"{value!r} is not UTF-8") from error

    def finish(self) -> None:
        """Check that nothing follows the last field."""
        if self.offset != len(self.data):
            raise self.fault("end", self.offset, f"{len(self.data) - self.offset} bytes follow the last field")

    def fault(self, field: str, offset: int, reason: str) -> MetadataDecodeError:
        """Return the error for a fault in ``field`` at ``offset``."""
        return MetadataDecodeError(
            f"{self._what} of {len(self.data)} bytes: field {field!r} at byte {offset}: {reason}",
            field=field,
            offset=offset,
        )
