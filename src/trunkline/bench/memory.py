"""Where blocks lie: a worker's buffers, and the places of blocks in them, the same on all workers.

Each transfer that may be under way has a *lane* of its own: one for each peer, thread and place in the pipeline. Block
``j`` of a transfer is in buffer ``j % buffers``, so that several buffers share every transfer.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np

from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PAGE = mmap.PAGESIZE


class Places:
    """Where the blocks of some buffers lie. Immutable.

    Args:
        bases: Each buffer's address, or 0 for a file.
        devices: Each buffer's device, or a file's descriptor.
        span: Bytes of a lane in each buffer.
        kind: The kind of memory.
    """

    def __init__(
        self, bases: Sequence[int], devices: Sequence[int], span: int, kind: MemoryKind = MemoryKind.DRAM
    ) -> None:
        self._bases = np.array(bases, np.uint64)
        self._devices = np.array(devices, np.uint64)
        self._span = span
        self._kind = kind

    def descriptors(self, lane: int, block_size: int, count: int) -> DescriptorList:
        """Return a transfer's blocks."""
        numbers = np.arange(count, dtype=np.uint64)
        buffers = numbers % np.uint64(len(self._bases))
        rows = np.empty((count, 3), np.uint64)
        rows[:, 0] = self._bases[buffers] + self.offsets(lane, block_size, count)
        rows[:, 1] = block_size
        rows[:, 2] = self._devices[buffers]
        return DescriptorList.of(self._kind, rows)

    def offsets(self, lane: int, block_size: int, count: int) -> NDArray[np.uint64]:
        """Return where in its buffer each block of a transfer is."""
        numbers = np.arange(count, dtype=np.uint64) // np.uint64(len(self._bases))
        return np.uint64(lane * self._span) + numbers * np.uint64(block_size)


class Buffers:
    """A worker's memory on one side.

    Args:
        count: How many buffers.
        lanes: How many lanes.
        transfer_size: The most bytes of one transfer.
        huge: Whether to ask for huge pages.
    """

    def __init__(self, count: int, lanes: int, transfer_size: int, *, huge: bool = False) -> None:
        self.span = span_of(transfer_size)
        self.lanes = lanes
        self.arrays = [_allocate(lanes * self.span, huge=huge) for _ in range(count if lanes else 0)]
        self.places = Places(self.addresses, [0] * len(self.arrays), self.span)

    @property
    def addresses(self) -> list[int]:
        """Where each buffer begins."""
        return [array.ctypes.data for array in self.arrays]

    @property
    def descriptors(self) -> DescriptorList:
        """All buffers, to be registered."""
        return DescriptorList.of(MemoryKind.DRAM, [(array.ctypes.data, array.nbytes, 0) for array in self.arrays])

    def lane(self, lane: int) -> DescriptorList:
        """Return all that a lane has, in every buffer, to be registered by itself."""
        return self.places.descriptors(lane, self.span, len(self.arrays))

    def blocks(self, lane: int, block_size: int, count: int) -> list[NDArray[np.uint8]]:
        """Return the bytes of a transfer's blocks, as views."""
        offsets = self.places.offsets(lane, block_size, count).tolist()
        return [
            self.arrays[number % len(self.arrays)][offset : offset + block_size]
            for number, offset in enumerate(offsets)
        ]


def span_of(transfer_size: int) -> int:
    """Return the bytes of a lane: whole pages."""
    return -(-transfer_size // PAGE) * PAGE


def _allocate(size: int, *, huge: bool) -> NDArray[np.uint8]:
    """Return memory whose pages are all there, so that no fault is measured."""
    mapping = mmap.mmap(-1, size)
    if huge:
        mapping.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(mapping, np.uint8)
    array[::PAGE] = 1
    return array
