"""What another agent offers, however it reached us: from the directory, on a card, or as raw NIXL metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trunkline.errors import MetadataMismatchError
from trunkline.metadata.card import decode_card, is_card
from trunkline.metadata.catalog import Catalog, decode_catalog
from trunkline.metadata.codec import decode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trunkline.directory.publication import Publication
    from trunkline.metadata.model import AgentMetadata


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """Decoded and consistent.

    Attributes:
        metadata: How to reach the agent and its segments.
        incarnation: Which run of the agent; None for NIXL's, which don't say.
        catalog: Its memory by name; empty for NIXL's.
        attributes: What it says of itself.
    """

    metadata: AgentMetadata
    incarnation: str | None = None
    catalog: Catalog = field(default_factory=Catalog)
    attributes: Mapping[str, str] = field(default_factory=dict)


def record_of_publication(publication: Publication) -> PeerRecord:
    """Decode what lay in the directory.

    Raises:
        MetadataDecodeError: It can't be decoded.
        MetadataMismatchError: It is the metadata of another agent.
    """
    metadata = decode(publication.metadata)
    if metadata.agent != publication.name:
        raise MetadataMismatchError(
            f"the metadata published as {publication.name!r} is that of agent {metadata.agent!r}",
            agent=publication.name,
        )
    presence = publication.presence
    if presence is None:
        return PeerRecord(metadata)
    catalog = Catalog() if publication.catalog is None else decode_catalog(publication.catalog)
    return PeerRecord(metadata, presence.incarnation, catalog, presence.attributes)


def record_of_bytes(data: bytes) -> PeerRecord:
    """Decode a card, or the raw metadata of a NIXL agent; they are told apart by their first bytes.

    Raises:
        MetadataDecodeError: The bytes are neither.
        MetadataMismatchError: The card's agent and its metadata's differ.
    """
    if not is_card(data):
        return PeerRecord(decode(data))
    card = decode_card(data)
    metadata = decode(card.metadata)
    if metadata.agent != card.agent:
        raise MetadataMismatchError(f"the card of {card.agent!r} holds the metadata of {metadata.agent!r}")
    catalog = Catalog() if card.catalog is None else decode_catalog(card.catalog)
    return PeerRecord(metadata, card.incarnation, catalog, card.attributes)
