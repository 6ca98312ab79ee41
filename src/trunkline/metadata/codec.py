"""Agent metadata as NIXL's bytes. Full and partial metadata have the same layout.

    Agent        name                                   t             backend name  ┐ one pair
    Conns        u64: number of connections             c             its info      ┘ per connection
    (untagged)   "MemSection"                           nixlSecElms   u64: number of sections

and per section ``bknd`` (backend name), ``nixlDList`` ("nixlSDList"), ``t`` (i32 kind of memory), ``n`` (u64
count) and one untagged field per segment: u64 address, u64 length, u64 device, remote key. Gathered from
NIXL 1.5.1 and exercised against it in both directions; its own blobs encode to the same bytes again.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from trunkline.errors import MetadataDecodeError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.container import MAGIC, TERMINATOR, ContainerReader, pack_field, pack_number
from trunkline.metadata.head import MAX_BACKENDS, read_agent, read_backend, read_connections
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BYTES = 64 << 20
"""The most that :func:`decode` takes unless told otherwise: more than a million segments of UCX."""

_I32 = struct.Struct("<i")
_U64 = struct.Struct("<Q")
_SEGMENT_SIZE = 24  # u64 address, length, device
_FRAME_SIZE = 8 + len(TERMINATOR)  # u64 length before it, "|" after it
_RECORD_SIZE = _FRAME_SIZE + _SEGMENT_SIZE  # of a segment with an empty key


def encode(metadata: AgentMetadata) -> bytes:
    """Return metadata as NIXL writes it."""
    parts = [
        MAGIC,
        pack_field(b"Agent", metadata.agent.encode()),
        pack_number(b"Conns", len(metadata.connections)),
    ]
    for backend, info in metadata.connections.items():
        parts += [pack_field(b"t", backend.encode()), pack_field(b"c", info)]
    parts += [pack_field(b"", b"MemSection"), pack_number(b"nixlSecElms", len(metadata.sections))]
    for section in metadata.sections:
        parts += [
            pack_field(b"bknd", section.backend.encode()),
            pack_field(b"nixlDList", b"nixlSDList"),
            pack_field(b"t", _I32.pack(section.kind)),
            pack_number(b"n", len(section.segments)),
            pack_segments(section.segments, section.keys),
        ]
    return b"".join(parts)


def decode(data: bytes | bytearray | memoryview, *, max_bytes: int = MAX_BYTES) -> AgentMetadata:
    """Return what NIXL, or :func:`encode`, wrote. Backends that are not installed here are kept, as data.

    Memory use stays within a small multiple of the input, whatever the input says. Remote keys refer to
    ``data`` itself if it is ``bytes``.

    Raises:
        MetadataDecodeError: Not exactly one well-formed metadata blob: larger than ``max_bytes``, truncated,
            trailing bytes, a name that no agent can have, an unknown kind of memory, an empty section, a
            connection or section that occurs twice, or a segment that ends beyond 2^64 - 1.
    """
    size = memoryview(data).nbytes
    if size > max_bytes:
        raise MetadataDecodeError(f"metadata of {size} bytes: at most {max_bytes} are read", field="size")
    reader = ContainerReader(bytes(data), "metadata")
    agent = read_agent(reader)
    connections = read_connections(reader)
    reader.read_constant(b"", b"MemSection")
    sections: dict[tuple[str, MemoryKind], SectionMetadata] = {}
    for _ in range(reader.read_number(b"nixlSecElms", max_value=MAX_BACKENDS * len(MemoryKind))):
        start = reader.offset
        section = _read_section(reader)
        if (section.backend, section.kind) in sections:
            raise reader.fault("bknd", start, f"a second section for {section.backend!r} and {section.kind.name}")
        sections[section.backend, section.kind] = section
    reader.finish()
    return AgentMetadata(agent, connections, tuple(sections.values()))


def _read_section(reader: ContainerReader) -> SectionMetadata:
    backend = read_backend(reader, b"bknd")
    reader.read_constant(b"nixlDList", b"nixlSDList")
    start = reader.offset
    (number,) = _I32.unpack(reader.read(b"t", min_size=_I32.size, max_size=_I32.size))
    if number not in list(MemoryKind):
        raise reader.fault("t", start, f"unknown kind of memory {number}")
    start = reader.offset
    count = reader.read_number(b"n", max_value=(len(reader.data) - start) // _RECORD_SIZE)
    if not count:
        raise reader.fault("n", start, "a section without segments")
    segments, keys = read_segments(reader, count)
    return SectionMetadata(backend, MemoryKind(number), segments, keys)


def read_segments(reader: ContainerReader, count: int) -> tuple[NDArray[np.uint64], RemoteKeys]:
    data = reader.data
    start = _find_records(reader, count)
    size = _windows(data, 8)[start].view("<u8").astype(np.int64) - _SEGMENT_SIZE
    end = start + (_RECORD_SIZE - 1) + size
    unterminated = np.frombuffer(data, np.uint8)[end] != TERMINATOR[0]
    if unterminated.any():
        row = int(np.argmax(unterminated))
        raise reader.fault("segment", int(end[row]), f"segment {row} of {count} is not followed by '|'")
    segments = _windows(data, _SEGMENT_SIZE)[start + 8].view("<u8").astype(np.uint64, copy=False).reshape(count, 3)
    overflowing = segments[:, 0] + segments[:, 1] < segments[:, 0]
    if overflowing.any():
        row = int(np.argmax(overflowing))
        address, length, device = segments[row].tolist()
        raise reader.fault(
            "segment",
            int(start[row]),
            f"segment {row} of {count} ends beyond 2^64 - 1: address {address}, length {length}, device {device}",
        )
    segments.setflags(write=False)
    reader.offset = int(end[-1]) + 1
    return segments, RemoteKeys(data, start + 8 + _SEGMENT_SIZE, size)


def _find_records(reader: ContainerReader, count: int) -> NDArray[np.int64]:
    """Return where each of the next ``count`` records starts; all of them lie within the data.

    Keys are nearly always of one size, and then nothing is walked; otherwise each record is found from the one before.
    """
    data, first = reader.data, reader.offset
    step = _record_step(reader, first, 0, count)
    if count * step <= len(data) - first:
        start = first + step * np.arange(count)
        if (_windows(data, 8)[start] == _windows(data, 8)[first]).all():
            return start
    start = np.empty(count, dtype=np.int64)
    offset = first
    for row in range(count):
        start[row] = offset
        offset += _record_step(reader, offset, row, count)
    return start


def _record_step(reader: ContainerReader, offset: int, row: int, count: int) -> int:
    """Return the size of the record at ``offset``, which lies within the data."""
    left = len(reader.data) - offset
    if left < _U64.size:
        raise reader.fault("segment", offset, f"the data ends in segment {row} of {count}")
    (size,) = _U64.unpack_from(reader.data, offset)
    if not _SEGMENT_SIZE <= size <= left - _FRAME_SIZE:
        raise reader.fault("segment", offset, f"segment {row} of {count} has {size} bytes; {left} bytes are left")
    return int(size) + _FRAME_SIZE


def pack_segments(segments: NDArray[np.uint64], keys: RemoteKeys) -> bytes:
    """Return the records of all segments; one step for each size of key, whatever their order."""
    largest = int(keys.size.max(initial=0))
    if (keys.size == largest).all():  # as nearly always
        return _records(segments, keys.data, keys.offset, largest).tobytes()
    step = keys.size + _RECORD_SIZE
    start = np.cumsum(step) - step
    out = bytearray(int(step.sum()))
    for size in np.unique(keys.size).tolist():
        rows = np.flatnonzero(keys.size == size)
        record = _records(segments[rows], keys.data, keys.offset[rows], size)
        _windows(out, record.shape[1])[start[rows]] = record.view(f"V{record.shape[1]}")[:, 0]
    return bytes(out)


def _records(segments: NDArray[np.uint64], keys: bytes, offset: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """Return the records of segments whose keys are of one size, one in each row."""
    record = np.empty((len(segments), size + _RECORD_SIZE), dtype=np.uint8)
    record[:, :8] = np.frombuffer(_U64.pack(size + _SEGMENT_SIZE), np.uint8)
    record[:, 8:32] = np.ascontiguousarray(segments, "<u8").view(np.uint8)
    if size:
        record[:, 32:-1] = _windows(keys, size)[offset].view(np.uint8).reshape(-1, size)
    record[:, -1] = TERMINATOR[0]
    return record


def _windows(data: bytes | bytearray, size: int) -> NDArray[np.void]:
    """Return a view whose item i is the ``size`` bytes of ``data`` from byte i on."""
    return np.ndarray((len(data) - size + 1,), f"V{size}", data, strides=(1,))
