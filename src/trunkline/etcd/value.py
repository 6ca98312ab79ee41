"""What the client gives back: plain values, no protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as it was at some revision. ``lease`` is 0 for none."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int

    @classmethod
    def of(cls, message: Any) -> KeyValue:
        """Copy a protobuf ``KeyValue``."""
        return cls(message.key, message.value, message.create_revision, message.mod_revision, message.lease)


@dataclass(frozen=True, slots=True)
class Listing:
    """All keys of a range at one revision, sorted.

    As an event of a watch it replaces whatever was known before.

    Attributes:
        entries: The keys.
        revision: The store's revision at which they were read.
        cluster: etcd's cluster id; another one means another history.
    """

    entries: tuple[KeyValue, ...]
    revision: int
    cluster: int


@dataclass(frozen=True, slots=True)
class Change:
    """What one revision changed in a watched range. Empty if only the connection came back."""

    put: tuple[KeyValue, ...]
    deleted: tuple[bytes, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Interruption:
    """No endpoint answers the watch, or the right to it was taken away; a Listing or Change (perhaps empty) follows
    when that is over.
    """

    reason: str


WatchEvent: TypeAlias = Listing | Change | Interruption


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a transaction did: whether its conditions held, and what each range request of its branch read."""

    succeeded: bool
    revision: int
    reads: tuple[tuple[KeyValue, ...], ...]
