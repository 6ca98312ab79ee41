from __future__ import annotations

import pytest

from trunkline.agent.record import record_of_bytes, record_of_publication
from trunkline.directory.publication import Publication
from trunkline.errors import MetadataDecodeError, MetadataMismatchError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.card import Card, encode_card
from trunkline.metadata.catalog import Catalog, TensorEntry, encode_catalog
from trunkline.metadata.codec import encode
from trunkline.metadata.model import AgentMetadata
from trunkline.metadata.presence import Presence

METADATA = encode(AgentMetadata("prefill-0", {"UCX": b"address"}))


def card(agent: str) -> bytes:
    return encode_card(Card(agent=agent, incarnation="0" * 32, metadata=METADATA, attributes={"role": "prefill"}))


def test_a_card_and_raw_metadata_are_told_apart() -> None:
    full, raw = record_of_bytes(card("prefill-0")), record_of_bytes(METADATA)
    assert full.metadata.agent == raw.metadata.agent == "prefill-0"
    assert (full.incarnation, full.attributes) == ("0" * 32, {"role": "prefill"})
    assert (raw.incarnation, raw.attributes, raw.catalog) == (None, {}, None)
    assert (full.label, raw.label) == ("metadata", "metadata")


def test_bytes_can_be_one_label_of_several() -> None:
    assert record_of_bytes(METADATA, label="x").label == record_of_bytes(card("prefill-0"), label="x").label == "x"


def test_a_card_with_another_agents_metadata() -> None:
    with pytest.raises(MetadataMismatchError, match="card of 'decode-0' holds the metadata of 'prefill-0'"):
        record_of_bytes(card("decode-0"))


def test_a_publication_under_another_name() -> None:
    publication = Publication("decode-0", "metadata", METADATA, None, None, 1)
    with pytest.raises(MetadataMismatchError, match="published as 'decode-0'"):
        record_of_publication(publication)


def test_a_publication_of_nixl_has_no_incarnation() -> None:
    record = record_of_publication(Publication("prefill-0", "metadata", METADATA, None, None, 1))
    assert (record.incarnation, record.catalog, record.label) == (None, None, "metadata")
    assert record_of_publication(Publication("prefill-0", "x", METADATA, None, None, 1)).label == "x"


def test_a_publication_of_any_label_may_bring_the_catalog() -> None:
    presence = Presence(incarnation="1" * 32, attributes={"role": "prefill"})
    offered = Catalog((TensorEntry("kv", MemoryKind.DRAM, "U8", (8,), 4096, 8, 0),))
    record = record_of_publication(Publication("prefill-0", "x", METADATA, encode_catalog(offered), presence, 1))
    assert (record.incarnation, record.catalog, record.label) == ("1" * 32, offered, "x")
    assert record.attributes == {"role": "prefill"}
    nothing = record_of_publication(Publication("prefill-0", "x", METADATA, None, presence, 1)).catalog
    assert nothing == Catalog()


@pytest.mark.parametrize("data", [b"", b"nixlSerDes|", METADATA[:-1], card("prefill-0")[:-1]])
def test_bytes_that_are_neither(data: bytes) -> None:
    with pytest.raises(MetadataDecodeError):
        record_of_bytes(data)
