"""What a watch of the directory tells.

For each agent: ``PeerJoined``, any number of ``PeerUpdated``, perhaps ``PeerSuspect`` (after which it may join again,
with nothing changed), ``PeerLeft``. A set that adds a name at ``PeerJoined`` and removes it at ``PeerLeft`` is always
right, also after an outage: nobody has to compare snapshots.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from trunkline.directory.view import AgentListing


class LeaveReason(StrEnum):
    """Why an agent is gone."""

    WITHDRAWN = "withdrawn"
    """It took back what it had published, or was closed."""
    EXPIRED = "expired"
    """Its lease ran out: it died, or was cut off for too long."""
    SUPERSEDED = "superseded"
    """A new incarnation has its name."""
    UNREACHABLE = "unreachable"
    """Its process is gone: a connection to it broke, and a new one was refused. Only agents find that out."""
    UNMATCHED = "unmatched"
    """It lives, but its attributes changed and do not match this watch's any more."""


@dataclass(frozen=True, slots=True)
class PeerJoined:
    """An agent is there, with something to fetch."""

    agent: AgentListing

    @property
    def name(self) -> str:
        return self.agent.name


@dataclass(frozen=True, slots=True)
class PeerUpdated:
    """An agent changed what it publishes, or what it says of itself.

    Attributes:
        agent: How it is now.
        label: Which label; None if attributes, state or just the names of memory changed.
        generation: A number that changes with the label's content; None if the label was withdrawn (or is None).
    """

    agent: AgentListing
    label: str | None = None
    generation: int | None = None

    @property
    def name(self) -> str:
        return self.agent.name


@dataclass(frozen=True, slots=True)
class PeerSuspect:
    """An agent's lease ran out, and that may mean nothing: many did at once, the store was away, or its data path
    still answers. It joins again, or leaves after its TTL.
    """

    agent: AgentListing

    @property
    def name(self) -> str:
        return self.agent.name


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """An agent is gone.

    Attributes:
        agent: How it was last.
        reason: Why.
    """

    agent: AgentListing
    reason: LeaveReason

    @property
    def name(self) -> str:
        return self.agent.name


@dataclass(frozen=True, slots=True)
class Synced:
    """Every agent that was there when the watch began has been told of."""


@dataclass(frozen=True, slots=True)
class StoreLost:
    """The store can't be reached, or it took the right to watch away: what is known may be out of date."""

    reason: str


@dataclass(frozen=True, slots=True)
class StoreBack:
    """The store answers again. What changed meanwhile follows."""


@dataclass(frozen=True, slots=True)
class NameConflict:
    """Somebody else writes under the name of an agent of this process.

    Attributes:
        name: The name.
        key: The key that was written.
        is_lost: Whether the name is lost to another incarnation (else it is a program that heeds no lease, such as
            NIXL, and the agent goes on).
    """

    name: str
    key: str
    is_lost: bool


DirectoryEvent: TypeAlias = (
    PeerJoined | PeerUpdated | PeerSuspect | PeerLeft | Synced | StoreLost | StoreBack | NameConflict
)

PeerEvent: TypeAlias = PeerJoined | PeerUpdated | PeerSuspect | PeerLeft
