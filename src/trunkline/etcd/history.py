"""Telling whether a cluster still has the history that was watched.

A cluster that lost its data and was started again as it was before has the same id. Its revisions start anew, but once
they have passed the one where a watch stands, nothing in its answers shows that. So the latest key that was seen is
kept as a witness: in the same history it can be read as it was then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from trunkline.errors import StoreRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trunkline.etcd.value import Listing


@dataclass(frozen=True, slots=True)
class _Witness:
    """How a key was: what two histories don't have in common. Most leases are random numbers."""

    key: bytes
    create_revision: int
    mod_revision: int
    lease: int
    size: int

    @classmethod
    def of(cls, entry: Any) -> Self:
        """Describe a KeyValue, or etcd's message of one."""
        return cls(entry.key, entry.create_revision, entry.mod_revision, entry.lease, len(entry.value))


class History:
    """Remembers the latest key that any watch of a client was told of. Not for several threads at once.

    Args:
        read: Reads a key as it is (0), or as it was at a revision, in so many seconds; raises StoreRequestError if
            there is no such revision.
    """

    def __init__(self, read: Callable[[bytes, int, float], Listing]) -> None:
        self._read = read
        self._witness: _Witness | None = None

    def note(self, entries: Iterable[Any]) -> None:
        """Remember the latest of these keys (KeyValues, or etcd's messages of them), whatever was remembered before."""
        latest = max(entries, key=lambda entry: entry.mod_revision, default=None)
        if latest is not None:
            self._witness = _Witness.of(latest)

    def is_unbroken(self, timeout: float) -> bool:
        """Return whether the store still has what was remembered. False if nothing was, or that was compacted away.

        Raises:
            StoreError: The store failed otherwise.
        """
        witness = self._witness
        if witness is None:
            return False
        try:
            return any(
                _Witness.of(entry) == witness
                for revision in (0, witness.mod_revision)  # mostly it is as it was, and then history may be compacted
                for entry in self._read(witness.key, revision, timeout).entries
            )
        except StoreRequestError:
            return False
