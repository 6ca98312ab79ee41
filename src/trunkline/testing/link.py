"""Two ends of transfers, as a test of a backend needs them, and what moves between them.

A :class:`Link` has a backend that posts and one that owns the far side, which may be memory, a file or an object.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from trunkline.backend.contract import Operation, Posting, RemoteBackend, Status
from trunkline.memory.kind import MemoryKind
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trunkline.backend.contract import Backend, BackendPeer, Request, Slots

Rows: TypeAlias = list[tuple[int, int, int]]
"""(local offset, remote offset, length) each."""


class FarMemory(Protocol):
    """What the far side of a test's transfers is: memory, a file, an object.

    Attributes:
        kind: Its kind of memory.
        address: Where it starts: an address, or an offset.
        device: Which device, file or object it is.
        nbytes: Its size.
        name: Its path or key; empty for memory.
    """

    kind: MemoryKind
    address: int
    device: int
    nbytes: int
    name: str

    def read(self) -> NDArray[np.uint8]:
        """Return what it holds now, past the backend."""
        ...

    def write(self, data: NDArray[np.uint8]) -> None:
        """Have it hold other bytes, as many, past the backend."""
        ...


class ArrayMemory:
    """Memory of this process as the far side.

    Args:
        data: What it holds; the array itself is used, not a copy.
    """

    kind = MemoryKind.DRAM
    device = 0
    name = ""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._data = data
        self.address = data.ctypes.data
        self.nbytes = data.nbytes

    def read(self) -> NDArray[np.uint8]:
        """Return what it holds now."""
        return self._data.copy()

    def write(self, data: NDArray[np.uint8]) -> None:
        """Have it hold other bytes."""
        self._data[:] = data


@dataclass(frozen=True, slots=True)
class Link:
    """Two ends of transfers: for a backend that works within one agent both are the same and ``peer`` is None.

    Attributes:
        initiator: Posts the requests.
        target: Owns the remote memory; it is driven by somebody else than the test.
        peer: The target as the initiator loaded it.
        place: Makes the far side of a transfer that holds these bytes.
    """

    initiator: Backend
    target: Backend
    peer: BackendPeer | None
    place: Callable[[NDArray[np.uint8]], FarMemory] = ArrayMemory

    def register(self, memory: NDArray[Any]) -> Slots:
        """Register an array at the initiator."""
        return self.initiator.register(MemoryKind.DRAM, segments_of(memory))

    def offer(self, memory: FarMemory) -> Slots:
        """Register memory at the target and return its slots as the initiator sees them."""
        segments = np.array([[memory.address, memory.nbytes, memory.device]], np.uint64)
        names = (memory.name,) if memory.name else ()
        slots = self.target.register(memory.kind, segments, names)
        if self.peer is None:
            return slots
        assert isinstance(self.target, RemoteBackend)
        return self.peer.load_segments(memory.kind, segments, self.target.remote_keys(slots))

    def prepare(self, operation: Operation, local: NDArray[Any], remote: FarMemory, rows: Rows) -> Request:
        """Register both sides and bind a posting of ``rows``: (local offset, remote offset, length) each."""
        posting = make_posting(operation, local, self.register(local), remote, self.offer(remote), rows)
        return self.initiator.prepare(posting, self.peer)


def segments_of(*arrays: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the N×3 segments of some arrays."""
    return np.array([[array.ctypes.data, array.nbytes, 0] for array in arrays], np.uint64)


def make_posting(
    operation: Operation,
    local: NDArray[Any],
    local_slots: Slots,
    remote: FarMemory | NDArray[Any],
    remote_slots: Slots,
    rows: Rows,
) -> Posting:
    """Return a posting of (local offset, remote offset, length) rows between two registered sides."""
    table = np.array(rows, np.uint64).reshape(-1, 3)
    return Posting(
        operation,
        table[:, 0] + np.uint64(local.ctypes.data),
        table[:, 1] + np.uint64(remote.ctypes.data if isinstance(remote, np.ndarray) else remote.address),
        table[:, 2].copy(),
        np.full(len(rows), local_slots[0], np.int32),
        np.full(len(rows), remote_slots[0], np.int32),
    )


def finish(request: Request, status: Status) -> Status:
    """Return the final status of a request that ``post`` answered with ``status``."""
    return request.wait(time.monotonic() + PATIENCE) if status == Status.IN_PROGRESS else status


def bytes_of(size: int, seed: int) -> NDArray[np.uint8]:
    """Return ``size`` reproducible random bytes."""
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)
