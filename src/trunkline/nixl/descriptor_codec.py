"""Descriptor lists as NIXL writes them: in its own container, never a pickle."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from trunkline.memory.kind import MemoryKind
from trunkline.metadata.codec import MAX_BYTES, pack_segments, read_segments
from trunkline.metadata.container import MAGIC, ContainerReader, pack_field, pack_number
from trunkline.metadata.model import RemoteKeys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trunkline.memory.descriptor import Rows

_I32 = struct.Struct("<i")
_PLAIN, _TAGGED = b"nixlBDList", b"nixlSDList"


def encode_plain(kind: MemoryKind, rows: Rows) -> bytes:
    """Return a list of ranges."""
    data = np.ascontiguousarray(rows, "<u8").tobytes()
    return _head(_PLAIN, kind, rows) + (pack_field(b"", data) if data else b"")


def encode_tagged(kind: MemoryKind, rows: Rows, meta: Sequence[bytes]) -> bytes:
    """Return a list of ranges that each have some bytes of their own."""
    return _head(_TAGGED, kind, rows) + (pack_segments(rows, RemoteKeys.of(meta)) if len(rows) else b"")


def decode_rows(data: bytes) -> tuple[MemoryKind, Rows, RemoteKeys | None]:
    """Return what a list holds; the last are the ranges' own bytes, None for a list whose form has none.

    Raises:
        MetadataDecodeError: It is not one whole list.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"serialised descriptors are bytes, not a {type(data).__name__}")
    reader = ContainerReader(bytes(data[: MAX_BYTES + 1]), "serialised descriptors")
    if len(reader.data) > MAX_BYTES:
        raise reader.fault("size", 0, f"at most {MAX_BYTES} bytes are read")
    start = reader.offset
    form = reader.read(b"nixlDList", max_size=len(_PLAIN))
    if form not in (_PLAIN, _TAGGED):
        raise reader.fault("nixlDList", start, f"unknown form {form!r}")
    start = reader.offset
    (number,) = _I32.unpack(reader.read(b"t", min_size=4, max_size=4))
    if number not in list(MemoryKind):
        raise reader.fault("t", start, f"unknown kind of memory {number}")
    kind = MemoryKind(number)
    count = reader.read_number(b"n", max_value=len(reader.data) // 24)
    if form == _PLAIN:
        found = reader.read(b"", min_size=24 * count, max_size=24 * count) if count else b""
        reader.finish()
        return kind, np.frombuffer(found, "<u8").astype(np.uint64, copy=False).reshape(-1, 3), None
    if not count:
        reader.finish()
        return kind, np.empty((0, 3), np.uint64), RemoteKeys.of([])
    segments, meta = read_segments(reader, count)
    reader.finish()
    return kind, np.ascontiguousarray(segments), meta


def _head(form: bytes, kind: MemoryKind, rows: Rows) -> bytes:
    return b"".join(
        [
            MAGIC,
            pack_field(b"nixlDList", form),
            pack_field(b"t", _I32.pack(kind)),
            pack_number(b"n", len(rows)),
        ]
    )
