"""What an agent publishes about itself: values only, no bytes and no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from trunkline.memory.kind import MemoryKind


@dataclass(frozen=True, slots=True, eq=False)
class RemoteKeys:
    """N remote keys inside one buffer, so that thousands of them need no object each.

    Attributes:
        data: The buffer that holds them (for decoded metadata the whole blob).
        offset: Where each key starts; int64, shape (N,).
        size: How long each key is; int64, shape (N,).
    """

    data: bytes
    offset: NDArray[np.int64]
    size: NDArray[np.int64]

    @classmethod
    def of(cls, keys: Sequence[bytes]) -> RemoteKeys:
        """Pack a list of keys."""
        size = np.fromiter((len(key) for key in keys), dtype=np.int64, count=len(keys))
        return cls(b"".join(keys), np.cumsum(size) - size, size)

    def take(self, rows: NDArray[np.intp]) -> RemoteKeys:
        """Return the keys of some rows; the buffer is shared."""
        return RemoteKeys(self.data, self.offset[rows], self.size[rows])

    def join(self, other: RemoteKeys) -> RemoteKeys:
        """Return the keys of both, packed into one buffer of their own."""
        mine, theirs = self._packed(), other._packed()
        size = np.concatenate([self.size, other.size])
        return RemoteKeys(mine + theirs, np.cumsum(size) - size, size)

    def _packed(self) -> bytes:
        step = np.arange(int(self.size.sum())) - np.repeat(np.cumsum(self.size) - self.size, self.size)
        packed: NDArray[np.uint8] = np.frombuffer(self.data, np.uint8)[np.repeat(self.offset, self.size) + step]
        return packed.tobytes()

    def equal_rows(self, other: RemoteKeys) -> NDArray[np.bool_]:
        """Return for each row whether its key is the same as the other's key in that row (equal counts)."""
        equal: NDArray[np.bool_] = self.size == other.size
        rows = np.flatnonzero(equal & (self.size > 0))
        size = self.size[rows]
        owner = np.repeat(rows, size)
        step = np.arange(len(owner)) - np.repeat(np.cumsum(size) - size, size)
        mine = np.frombuffer(self.data, np.uint8)[np.repeat(self.offset[rows], size) + step]
        theirs = np.frombuffer(other.data, np.uint8)[np.repeat(other.offset[rows], size) + step]
        equal[owner[mine != theirs]] = False
        return equal

    def __len__(self) -> int:
        return len(self.offset)

    def __getitem__(self, row: int) -> bytes:
        start = int(self.offset[row])
        return self.data[start : start + int(self.size[row])]

    def __iter__(self) -> Iterator[bytes]:
        return (self[row] for row in range(len(self)))


@dataclass(frozen=True, slots=True, eq=False)
class SectionMetadata:
    """The segments that one backend offers in one kind of memory.

    Attributes:
        backend: Backend name as on the wire (``UCX``).
        kind: Kind of memory.
        segments: uint64, shape (N, 3): address, length, device. N is at least 1.
        keys: N remote keys.
    """

    backend: str
    kind: MemoryKind
    segments: NDArray[np.uint64]
    keys: RemoteKeys


@dataclass(frozen=True, slots=True, eq=False)
class AgentMetadata:
    """Everything a peer needs to reach an agent.

    Attributes:
        agent: The agent's name.
        connections: Connection info by backend name, in wire order. Empty in partial metadata without it.
        sections: One per (backend, kind), in wire order.
    """

    agent: str
    connections: dict[str, bytes] = field(default_factory=dict)
    sections: tuple[SectionMetadata, ...] = ()
