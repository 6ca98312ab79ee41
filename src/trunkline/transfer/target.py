"""What a transfer needs to know of the peer whose memory it uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trunkline.errors import PeerGoneError
from trunkline.memory.section import Section

if TYPE_CHECKING:
    from trunkline.backend.contract import BackendPeer


@dataclass(slots=True, eq=False)
class Target:
    """A peer as transfers see it: its segments, and one link per backend.

    Attributes:
        name: The peer's name.
        links: The backends' sides of this peer, by backend name.
        section: Its segments; replaced as a whole when they change.
        hears_failures: Whether it understands news of failed transfers (a Trunkline agent does, NIXL's does not).
        gone: Why it can't be used any more, or None.
    """

    name: str
    links: dict[str, BackendPeer] = field(default_factory=dict)
    section: Section = field(default_factory=Section)
    hears_failures: bool = False
    gone: str | None = None

    def check(self) -> None:
        """Raise PeerGoneError if the peer is gone."""
        if self.gone is not None:
            raise PeerGoneError(
                f"peer {self.name!r} is gone: {self.gone}; fetch it again to use its next incarnation",
                agent=self.name,
                reason=self.gone,
            )
