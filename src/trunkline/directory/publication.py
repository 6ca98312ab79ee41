"""What a fetch returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.metadata.presence import Presence


@dataclass(frozen=True, slots=True)
class Publication:
    """What an agent published under one label, as it was at one revision.

    Attributes:
        name: The agent.
        label: The label.
        metadata: Its value: encoded metadata, checked against the presence record only.
        catalog: The agent's catalog; None if it has none or another label than ``metadata`` was asked for.
        presence: The agent's presence record; None for NIXL's own agents, which have none.
        revision: The store's revision at which the value was written.
    """

    name: str
    label: str
    metadata: bytes
    catalog: bytes | None
    presence: Presence | None
    revision: int
