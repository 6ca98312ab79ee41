"""What a transfer needs to know of the peer whose memory it uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from trunkline.errors import PeerDrainingError, PeerGoneError
from trunkline.memory.section import EMPTY, Section, find_rows

if TYPE_CHECKING:
    from trunkline.backend.contract import BackendPeer
    from trunkline.memory.descriptor import Rows
    from trunkline.memory.kind import MemoryKind

REMEMBERED_RANGES = 1 << 16
"""How many ranges that a peer took back are remembered, for each backend and kind of memory."""


@dataclass(slots=True, eq=False)
class Target:
    """A peer as transfers see it: its segments, and one link per backend.

    Attributes:
        name: The peer's name.
        links: The backends' sides of this peer, by backend name.
        section: Its segments.
        hears_failures: Whether it understands news of failed transfers (a Trunkline agent does, NIXL's does not).
        gone: Why it can't be used any more, or None.
        is_draining: Whether it is going away: nothing new is posted to it.
        is_self: Whether it is the agent itself: then its files and objects are reached, too.
        rates: Bytes a second that transfers of some size lately made, by backend.
    """

    name: str
    links: dict[str, BackendPeer] = field(default_factory=dict)
    section: Section = field(default_factory=Section)
    hears_failures: bool = False
    gone: str | None = None
    is_draining: bool = False
    is_self: bool = False
    rates: dict[str, float] = field(default_factory=dict)
    _former: dict[tuple[str, MemoryKind], Rows] = field(default_factory=dict)

    def former(self, backend: str, kind: MemoryKind) -> Rows:
        """Return the ranges that it offered once and does not offer any more, oldest first; shape (N, 3)."""
        return self._former.get((backend, kind), EMPTY.segments)

    def remember(self, backend: str, kind: MemoryKind, taken_back: Rows, *, offered: Rows) -> None:
        """Remember the latest ranges that were taken back, and forget those that are offered again.

        One caller at a time; :meth:`former` may be called meanwhile.
        """
        former = self.former(backend, kind)
        if not len(former) and not len(taken_back):  # as whenever a peer is loaded for the first time
            return
        kept = former[find_rows(former, offered) < 0]
        self._former = {**self._former, (backend, kind): np.concatenate([kept, taken_back])[-REMEMBERED_RANGES:]}

    def check(self) -> None:
        """Raise PeerGoneError if the peer is gone."""
        if self.gone is not None:
            raise PeerGoneError(
                f"peer {self.name!r} is gone: {self.gone}; fetch it again to use its next incarnation",
                agent=self.name,
                reason=self.gone,
            )

    def check_post(self) -> None:
        """Raise PeerGoneError if the peer is gone, PeerDrainingError if it takes nothing new."""
        self.check()
        if self.is_draining:
            raise PeerDrainingError(
                f"peer {self.name!r} is draining: it is going away and takes nothing new; use another one",
                agent=self.name,
            )
