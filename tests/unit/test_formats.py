"""The records of every format of ours, as they were released: they are read for ever.

``tests/data/golden`` holds them as ``<what>-<format>[-<case>]``. Format 3 does not exist: those stand for what a newer
version may write, for readers of all formats (``readable``), or for newer ones only (``unreadable``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from trunkline.errors import MetadataDecodeError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata import card, catalog, presence
from trunkline.metadata.codec import decode, encode
from trunkline.metadata.head import without_sections
from trunkline.metadata.model import AgentMetadata
from trunkline.metadata.notification import decode_notification, encode_notification
from trunkline.metadata.presence import ChunksRecord, ContentRecord, LabelRecord, Presence, ProcessRecord
from trunkline.offer import manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

DATA = Path(__file__).parents[1] / "data"

SHA_1, SHA_2 = (
    "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
)
PRESENCE = Presence(
    incarnation="0123456789abcdef0123456789abcdef",
    process=ProcessRecord("node-7", "9ce6856d-1e47-46df-bdbc-9f714de3a16a", 4711, "pid:[4026531836]", 235808),
    software="trunkline 0.1.0",
    backends=("UCX",),
    attributes={"role": "prefill"},
    state="draining",
    labels={"metadata": LabelRecord(5, SHA_1, 3)},
    catalog=ContentRecord(1, SHA_2),
)
CHUNKED = PRESENCE.publishing(
    {"metadata": LabelRecord(4_400_378, SHA_1, 3, chunks=ChunksRecord("6f1c0e9b7a5d4c3e8f2a1b0c9d8e7f60", 9))},
    ContentRecord(7_268_000, SHA_2, chunks=ChunksRecord("0a1b2c3d4e5f60718293a4b5c6d7e8f9", 14)),
)
CATALOG = catalog.Catalog(
    (
        catalog.TensorEntry("kv/0", MemoryKind.VRAM, "BF16", (2, 3), 4096, 12, 7),
        catalog.TensorEntry("raw", MemoryKind.DRAM, None, (5,), 0, 5, 0),
    ),
    {"kv": ("kv/0",)},
)
CARD = card.Card(agent="a", incarnation="0" * 32, metadata=b"m", catalog=b"c", attributes={"role": "decode"})
MANIFEST = manifest.Manifest(
    is_directory=True,
    files=(manifest.FileEntry("a/b", 3, manifest.chunk_digest(b"abc")), manifest.FileEntry("c", 0, b"")),
    directories=("empty",),
    chunk_size=4096,
    total=3,
)


class Format(NamedTuple):
    """What is written in a format of its own."""

    module: ModuleType
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


FORMATS = {
    "presence": Format(presence, presence.encode_presence, presence.decode_presence),
    "catalog": Format(catalog, catalog.encode_catalog, catalog.decode_catalog),
    "card": Format(card, card.encode_card, card.decode_card),
    "manifest": Format(manifest, manifest.encode_manifest, manifest.decode_manifest),
}
WRITTEN = {
    "presence-2.json": PRESENCE,
    "presence-2-chunks.json": CHUNKED,
    "catalog-1.json": CATALOG,
    "card-1.bin": CARD,
    "manifest-1.json": MANIFEST,
}
"""What today's version writes."""

READ = WRITTEN | {
    "presence-1.json": msgspec.structs.replace(PRESENCE, format=1),
    "presence-1-least.json": Presence(format=1, incarnation=PRESENCE.incarnation),
}
NEWER = {
    "catalog-3-readable.json": CATALOG,
    "card-3-readable.bin": CARD,
    "manifest-3-readable.json": MANIFEST,
}


def golden(name: str) -> bytes:
    data = (DATA / "golden" / name).read_bytes()
    return data.strip() if name.endswith(".json") else data


def format_of(name: str) -> Format:
    return FORMATS[name.partition("-")[0]]


def test_every_record_is_tested() -> None:
    tested = {*READ, *NEWER, *(f"{name}-3-unreadable" for name in FORMATS), "presence-3-readable.json"}
    rest = {"notification.bin", "metadata-connection-only.bin"}
    found = {path.name for path in (DATA / "golden").iterdir()}
    assert {name.removesuffix(".json").removesuffix(".bin") for name in found} == {
        name.removesuffix(".json").removesuffix(".bin") for name in tested | rest
    }


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_stays_as_it_is(name: str) -> None:
    assert format_of(name).encode(WRITTEN[name]) == golden(name)


@pytest.mark.parametrize("name", READ)
def test_every_released_format_is_read(name: str) -> None:
    assert format_of(name).decode(golden(name)) == READ[name]


@pytest.mark.parametrize("name", NEWER)
def test_what_a_newer_version_writes_for_all_is_read(name: str) -> None:
    assert format_of(name).decode(golden(name)) == NEWER[name]


def test_a_newer_presence_for_all_is_read_and_what_is_new_in_it_kept() -> None:
    found = presence.decode_presence(golden("presence-3-readable.json"))
    assert (found.format, found.is_readable, found.unknown) == (3, True, {"zone": {"rack": 4}})
    assert found.labels == PRESENCE.labels
    assert found.process.host == "node-7"
    assert presence.decode_presence(presence.encode_presence(found)) == found


@pytest.mark.parametrize("name", ["catalog-3-unreadable.json", "card-3-unreadable.bin", "manifest-3-unreadable.json"])
def test_what_is_for_newer_readers_says_so(name: str) -> None:
    with pytest.raises(MetadataDecodeError, match="for readers of format 3 and up"):
        format_of(name).decode(golden(name))


def test_a_presence_for_newer_readers_can_be_listed() -> None:
    found = presence.decode_presence(golden("presence-3-unreadable.json"))
    assert (found.format, found.min_reader, found.is_readable, found.is_published) == (3, 3, False, True)


@pytest.mark.parametrize("name", [*WRITTEN, *NEWER])
def test_a_reader_of_the_first_format_reads_what_it_can(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that today's version writes but records with chunks, which it lists."""
    what = format_of(name)
    monkeypatch.setattr(what.module, "FORMAT", 1)
    found = what.decode(golden(name))
    if name == "presence-2-chunks.json":
        assert (found.format, found.min_reader, found.is_readable, found.is_published) == (2, 2, False, True)
    else:
        assert found == {**WRITTEN, **NEWER}[name]


def test_nixl_s_framing_stays_as_it_is() -> None:
    """These are no formats of ours: real agents have to read them. ``nixl-blobs`` were written by one."""
    assert encode_notification("decode-0", b"req-7") == golden("notification.bin")
    assert decode_notification(golden("notification.bin")) == ("decode-0", b"req-7")
    alone = AgentMetadata("a", {"UCX": b"address"})
    assert encode(alone) == golden("metadata-connection-only.bin")
    for path in sorted((DATA / "nixl-blobs").glob("*.bin")):
        whole, left = decode(path.read_bytes()), decode(without_sections(path.read_bytes()))
        assert (left.agent, left.connections, left.sections) == (whole.agent, whole.connections, ())
    without = (DATA / "nixl-blobs" / "metadata-0-regions.bin").read_bytes()
    assert without_sections(without) == without  # so it is what NIXL writes for an agent without memory
