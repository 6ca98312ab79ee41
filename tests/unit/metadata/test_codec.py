from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from trunkline.errors import MetadataDecodeError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.codec import decode, encode
from trunkline.metadata.container import MAGIC, pack_field, pack_number
from trunkline.metadata.head import MAX_BACKENDS
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata
from trunkline.testing.strategies import agent_metadata

BLOBS = Path(__file__).parents[2] / "data" / "nixl-blobs"
UCX_HOST_KEY = bytes.fromhex("010000000000000000 00 ff")


def metadata_of(keys: list[bytes], kind: MemoryKind = MemoryKind.DRAM) -> AgentMetadata:
    segments = np.array([(4096 * row, 4096, 0) for row in range(len(keys))], dtype=np.uint64)
    return AgentMetadata("a", {"UCX": b"address"}, (SectionMetadata("UCX", kind, segments, RemoteKeys.of(keys)),))


def blob(*fields: bytes, agent: bytes = b"a") -> bytes:
    """A container that starts like metadata without connections."""
    return MAGIC + pack_field(b"Agent", agent) + b"".join(fields)


def record(address: int = 0, length: int = 1, device: int = 0, key: bytes = b"k") -> bytes:
    return pack_field(b"", struct.pack("<QQQ", address, length, device) + key)


def section(*records: bytes, backend: bytes = b"UCX", kind: int = 0, count: int | None = None) -> bytes:
    return b"".join(
        (
            pack_field(b"bknd", backend),
            pack_field(b"nixlDList", b"nixlSDList"),
            pack_field(b"t", struct.pack("<i", kind)),
            pack_number(b"n", len(records) if count is None else count),
            *records,
        )
    )


def sections(*parts: bytes, count: int | None = None) -> bytes:
    return b"".join(
        (
            pack_number(b"Conns", 0),
            pack_field(b"", b"MemSection"),
            pack_number(b"nixlSecElms", len(parts) if count is None else count),
            *parts,
        )
    )


class TestRealBlobs:
    @pytest.mark.parametrize("path", sorted(BLOBS.glob("*.bin")), ids=lambda path: path.stem)
    def test_encode_to_the_same_bytes_again(self, path: Path) -> None:
        data = path.read_bytes()
        assert encode(decode(data)) == data

    @pytest.mark.parametrize(
        ("name", "connections", "regions"),
        [
            ("metadata-0-regions", ["UCX"], 0),
            ("metadata-1-regions", ["UCX"], 1),
            ("metadata-3-regions", ["UCX"], 3),
            ("metadata-2000-regions", ["UCX"], 2000),
            ("partial-3-regions", [], 3),
            ("partial-3-regions-with-connection", ["UCX"], 3),
        ],
    )
    def test_hold_what_nixl_registered(self, name: str, connections: list[str], regions: int) -> None:
        metadata = decode((BLOBS / f"{name}.bin").read_bytes())
        assert metadata.agent == "agent-1"
        assert list(metadata.connections) == connections
        assert sum(len(section.segments) for section in metadata.sections) == regions
        for part in metadata.sections:
            assert (part.backend, part.kind) == ("UCX", MemoryKind.DRAM)
            assert set(part.segments[:, 1].tolist()) == {4096}
            assert set(part.segments[:, 2].tolist()) == {0}
            assert set(part.keys) == {UCX_HOST_KEY}

    def test_addresses(self) -> None:
        metadata = decode((BLOBS / "metadata-3-regions.bin").read_bytes())
        assert metadata.sections[0].segments[:, 0].tolist() == [0x55A154D57390 + 4096 * row for row in range(3)]


class TestRoundTrip:
    @given(agent_metadata())
    def test_everything_comes_back(self, metadata: AgentMetadata) -> None:
        data = encode(metadata)
        decoded = decode(data)
        assert decoded.agent == metadata.agent
        assert list(decoded.connections.items()) == list(metadata.connections.items())
        assert len(decoded.sections) == len(metadata.sections)
        for mine, theirs in zip(decoded.sections, metadata.sections, strict=True):
            assert (mine.backend, mine.kind) == (theirs.backend, theirs.kind)
            assert np.array_equal(mine.segments, theirs.segments)
            assert list(mine.keys) == list(theirs.keys)
        assert encode(decoded) == data

    @pytest.mark.parametrize("sizes", [[11], [0], [0, 1], [3, 3, 4, 3], [5, 0, 5, 200]])
    def test_thousands_of_keys_of_one_or_several_sizes(self, sizes: list[int]) -> None:
        keys = [bytes([row % 256]) * sizes[row % len(sizes)] for row in range(5000)]
        decoded = decode(encode(metadata_of(keys)))
        assert list(decoded.sections[0].keys) == keys
        assert decoded.sections[0].segments[:, 0].tolist() == [4096 * row for row in range(5000)]

    def test_keys_may_come_from_a_selection_of_a_larger_buffer(self) -> None:
        keys = RemoteKeys.of([b"ab", b"c", b"def", b""]).take(np.array([2, 0, 3]))
        part = SectionMetadata("UCX", MemoryKind.VRAM, np.ones((3, 3), np.uint64), keys)
        assert list(decode(encode(AgentMetadata("a", {}, (part,)))).sections[0].keys) == [b"def", b"ab", b""]

    def test_bytes_are_shared_and_other_buffers_copied(self) -> None:
        data = encode(metadata_of([b"key"]))
        assert decode(data).sections[0].keys.data is data
        source = bytearray(data)
        decoded = decode(memoryview(source))
        source[:] = bytes(len(source))
        assert list(decoded.sections[0].keys) == [b"key"]

    def test_segments_are_read_only(self) -> None:
        segments = decode(encode(metadata_of([b"key"]))).sections[0].segments
        assert segments.dtype == np.uint64
        assert not segments.flags.writeable


class TestRefuses:
    @pytest.mark.parametrize("path", sorted(BLOBS.glob("*-[013]-*.bin")), ids=lambda path: path.stem)
    def test_a_blob_cut_anywhere(self, path: Path) -> None:
        data = path.read_bytes()
        for size in range(len(data)):
            with pytest.raises(MetadataDecodeError):
                decode(data[:size])

    @pytest.mark.parametrize(
        ("data", "field", "message"),
        [
            (b"", "magic", "does not start with"),
            (blob(sections(), b"x"), "end", "1 bytes follow the last field"),
            (blob(sections(), agent=b"a/b"), "Agent", "no agent can be called 'a/b'"),
            (blob(sections(), agent=b".a"), "Agent", "no agent can be called '.a'"),
            (blob(sections(), agent=b"a\n"), "Agent", "no agent can be called"),
            (blob(sections(), agent=b"\xc3"), "Agent", "is not UTF-8"),
            (blob(sections(), agent=b"a" * 256), "Agent", "256 bytes, where 1 to 255"),
            (blob(sections(), agent=b""), "Agent", "0 bytes, where 1 to 255"),
            (blob(pack_number(b"Conns", MAX_BACKENDS + 1)), "Conns", "65 is more than the 64"),
            (blob(pack_number(b"Conns", 1), pack_field(b"t", b"U\0")), "t", "no backend can be called"),
            (blob(pack_number(b"Conns", 1), pack_field(b"t", b"U"), pack_field(b"c", b"")), "c", "0 bytes"),
            (
                blob(pack_number(b"Conns", 2), 2 * (pack_field(b"t", b"U") + pack_field(b"c", b"x"))),
                "t",
                "a second connection for backend 'U'",
            ),
            (blob(pack_number(b"Conns", 0), pack_field(b"", b"MemSectioN")), "untagged", "where b'MemSection' belongs"),
            (blob(sections(count=2**63)), "nixlSecElms", "is more than"),
            (blob(sections(count=1)), "bknd", "found b''"),
            (blob(sections(section(record()), section(record()))), "bknd", "a second section for 'UCX' and DRAM"),
            (blob(sections(section(record(), kind=5))), "t", "unknown kind of memory 5"),
            (blob(sections(section(record(), kind=-1))), "t", "unknown kind of memory -1"),
            (blob(sections(section())), "n", "a section without segments"),
            (blob(sections(section(record(), count=2))), "n", "2 is more than the 1"),
            (blob(sections(section(record(key=b"k" * 40), count=2))), "segment", "segment 1 of 2"),
            (blob(sections(section(record(), record(), count=1))), "end", "bytes follow"),
            (blob(sections(section(record(2**64 - 1, 1)))), "segment", "segment 0 of 1 ends beyond 2\\^64 - 1"),
            (blob(sections(section(record(), record(2**63, 2**63)))), "segment", "segment 1 of 2 ends beyond"),
            (blob(sections(section(record()[:-1] + b"!", record()))), "segment", "segment 0 of 2 is not followed"),
            (blob(sections(section(record(), record(key=b"")[:-1] + b"!"))), "segment", "segment 1 of 2 is not"),
            (blob(sections(section(b"\x17" + bytes(7) + bytes(40)))), "segment", "segment 0 of 1 has 23 bytes"),
            (blob(sections(section(b"\xff" * 8 + bytes(40)))), "segment", f"has {2**64 - 1} bytes"),
        ],
    )
    def test_malformed(self, data: bytes, field: str, message: str) -> None:
        with pytest.raises(MetadataDecodeError, match=message) as caught:
            decode(data)
        assert caught.value.field == field
        assert 0 <= caught.value.offset <= len(data)

    def test_more_than_asked_for(self) -> None:
        data = encode(metadata_of([b"key"]))
        decode(data, max_bytes=len(data))
        with pytest.raises(MetadataDecodeError, match=f"at most {len(data) - 1} are read"):
            decode(data, max_bytes=len(data) - 1)


def test_unknown_backends_and_segments_of_no_bytes_are_kept() -> None:
    data = blob(sections(section(record(5, 0), backend=b"NEW"), section(record(), backend=b"NEW", kind=4)))
    assert [(part.backend, part.kind) for part in decode(data).sections] == [
        ("NEW", MemoryKind.DRAM),
        ("NEW", MemoryKind.FILE),
    ]
    assert encode(decode(data)) == data
