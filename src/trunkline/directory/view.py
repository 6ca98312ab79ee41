"""What the phone book says of agents: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.metadata.presence import Presence


@dataclass(frozen=True, slots=True)
class AgentListing:
    """One agent as the directory knows it.

    Attributes:
        name: Its name.
        incarnation: 32 hexadecimal digits, new for each agent object. For NIXL's own agents, which have none, a
            number that changes when they start anew.
        attributes: Free pairs that it published.
        state: ``ready``, or ``draining``: going away, takes nothing new.
        labels: What it published: for each label a number that changes with its content.
        catalog: What identifies its catalog of names; empty without one.
        host: Where it runs; empty where that is not said.
        pid: Its process there; 0 where that is not said.
        software: Name and version of its writer.
        backends: Names of its backends.
        ttl: Seconds its record outlives it; 0 where that is not said.
        revision: The store's revision of its latest change.
        namespace: The namespace under which its keys lie.
        is_nixl: Whether it is one of NIXL's own, which have no lease: one that died stays listed.
        is_readable: Whether this version understands its record; else only its name is known.
        is_suspect: Whether its lease ran out and that is not yet taken for its death.
    """

    name: str
    incarnation: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    state: str = "ready"
    labels: Mapping[str, int] = field(default_factory=dict)
    catalog: str = ""
    host: str = ""
    pid: int = 0
    software: str = ""
    backends: tuple[str, ...] = ()
    ttl: float = 0.0
    revision: int = 0
    namespace: str = ""
    is_nixl: bool = False
    is_readable: bool = True
    is_suspect: bool = False

    @classmethod
    def of_presence(cls, name: str, namespace: str, presence: Presence, revision: int) -> Self:
        """Return what a presence record says."""
        return cls(
            name=name,
            incarnation=presence.incarnation,
            attributes=presence.attributes,
            state=presence.state,
            labels={label: record.generation for label, record in presence.labels.items()},
            catalog=presence.catalog.sha256 if presence.catalog is not None else "",
            host=presence.process.host,
            pid=presence.process.pid,
            software=presence.software,
            backends=presence.backends,
            ttl=presence.ttl,
            revision=revision,
            namespace=namespace,
            is_readable=presence.is_readable,
        )

    def matches(self, pattern: str, attributes: Mapping[str, str]) -> bool:
        """Return whether the name matches a glob pattern, and all the attributes are as given."""
        return fnmatchcase(self.name, pattern) and all(
            self.attributes.get(key) == value for key, value in attributes.items()
        )


class DirectoryView(Mapping[str, AgentListing]):
    """All agents by name, as last heard from the store. Immutable.

    Attributes:
        age: Seconds since the store was last heard; 0 while it is connected and up to date.
        is_synced: Whether everything that was there at the start has been read.
    """

    __slots__ = ("_listings", "age", "is_synced")

    def __init__(self, listings: Mapping[str, AgentListing], *, age: float, is_synced: bool) -> None:
        self._listings = dict(listings)
        self.age = age
        self.is_synced = is_synced

    def __getitem__(self, name: str) -> AgentListing:
        return self._listings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._listings)

    def __len__(self) -> int:
        return len(self._listings)

    def __repr__(self) -> str:
        return f"<DirectoryView of {len(self)} agents, {self.age:.1f} s old>"
