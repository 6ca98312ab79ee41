"""What another agent offers, however it reached us: from the directory, on a card, or as raw NIXL metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trunkline.errors import MetadataMismatchError, PeerIncompatibleError
from trunkline.metadata.card import decode_card, is_card
from trunkline.metadata.catalog import Catalog, decode_catalog
from trunkline.metadata.codec import decode
from trunkline.metadata.key import DEFAULT_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trunkline.directory.publication import Publication
    from trunkline.metadata.model import AgentMetadata


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """Decoded and consistent.

    Attributes:
        metadata: How to reach the agent, and its segments: all of them, or those of one label.
        incarnation: Which run of the agent; None where its metadata came alone, as NIXL's does.
        catalog: All its memory by name, whatever the label; None where nothing was said of it.
        attributes: What it says of itself.
        label: The part of its metadata that this is.
    """

    metadata: AgentMetadata
    incarnation: str | None = None
    catalog: Catalog | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    label: str = DEFAULT_LABEL

    def check(self, require: Mapping[str, str]) -> None:
        """Refuse an agent whose attributes are not what is required.

        Raises:
            PeerIncompatibleError: One differs or is missing; the message says which, and how.
        """
        differences = {
            key: (wanted, self.attributes.get(key))
            for key, wanted in require.items()
            if self.attributes.get(key) != wanted
        }
        if differences:
            fields = "; ".join(
                f"{key}: wanted {wanted!r}, it has {'none' if found is None else repr(found)}"
                for key, (wanted, found) in differences.items()
            )
            raise PeerIncompatibleError(
                f"agent {self.metadata.agent!r} is not what was required ({fields}); nothing of it was loaded",
                differences=differences,
                agent=self.metadata.agent,
            )


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
        return PeerRecord(metadata, label=publication.label)
    catalog = Catalog() if publication.catalog is None else decode_catalog(publication.catalog)
    return PeerRecord(metadata, presence.incarnation, catalog, presence.attributes, publication.label)


def record_of_bytes(data: bytes, *, label: str = DEFAULT_LABEL) -> PeerRecord:
    """Decode a card, or the raw metadata of a NIXL agent; they are told apart by their first bytes.

    Args:
        data: What the application carried.
        label: Which part of the agent's metadata it is; the bytes don't say.

    Raises:
        MetadataDecodeError: The bytes are neither.
        MetadataMismatchError: The card's agent and its metadata's differ.
    """
    if not is_card(data):
        return PeerRecord(decode(data), label=label)
    card = decode_card(data)
    metadata = decode(card.metadata)
    if metadata.agent != card.agent:
        raise MetadataMismatchError(f"the card of {card.agent!r} holds the metadata of {metadata.agent!r}")
    catalog = Catalog() if card.catalog is None else decode_catalog(card.catalog)
    return PeerRecord(metadata, card.incarnation, catalog, card.attributes, label)
