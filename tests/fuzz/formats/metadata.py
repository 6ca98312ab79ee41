"""What an agent says of itself: metadata, what else NIXL's container holds, and our records in JSON and MessagePack."""

from __future__ import annotations

import numpy as np
from tests.fuzz.target import BLOBS, Target, golden

from trunkline.agent.record import record_of_bytes
from trunkline.errors import ConfigurationError, MetadataDecodeError, MetadataMismatchError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.card import Card, decode_card, encode_card
from trunkline.metadata.catalog import Catalog, TensorEntry, decode_catalog, encode_catalog
from trunkline.metadata.codec import decode, encode
from trunkline.metadata.head import without_sections
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata
from trunkline.metadata.notification import decode_notification, encode_notification
from trunkline.metadata.presence import decode_presence, encode_presence
from trunkline.nixl.descriptor_list import decode_list, nixlRegDList, nixlXferDList
from trunkline.nixl.enumeration import nixl_mem_t


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


TARGETS = {
    "metadata": Target(metadata, [*SMALL_BLOBS, METADATA]),
    "metadata-head": Target(head, [*SMALL_BLOBS, METADATA]),
    "notification": Target(notification, [encode_notification("agent", b"message"), encode_notification("a", b"")]),
    "descriptor-list": Target(descriptors, lists()),
    "catalog": Target(catalog, [CATALOG, *golden("catalog")], cost=16),
    "card": Target(card, [CARD, *golden("card")], (MetadataDecodeError, MetadataMismatchError)),
    "presence": Target(presence, golden("presence"), (MetadataDecodeError, ConfigurationError)),
}
