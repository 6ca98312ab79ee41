"""Registered segments of memory and of objects, in a table that plans look slots up in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trunkline.backend.contract import Slots

LARGEST_OBJECT = 1 << 50
"""More than any store takes; keeps sums of offsets within 64 bits."""


class SegmentTable:
    """Segments by slot. Slots are used again, each time with another serial number. Its caller holds a lock."""

    def __init__(self) -> None:
        self.start = np.zeros(0, np.uint64)
        self.end = np.zeros(0, np.uint64)
        self.serial = np.zeros(0, np.int64)
        """0 while the slot is free."""
        self.keys: list[str] = []
        """The object's; empty for memory."""
        self._free: list[int] = []
        self._last_serial = 0

    def add(self, segments: NDArray[np.uint64], keys: Sequence[str] = ()) -> Slots:
        """Take a slot for each segment."""
        count = len(segments)
        lacking = count - len(self._free)
        if lacking > 0:
            grown = max(lacking, len(self.keys), 16)
            self._free += range(len(self.keys) + grown - 1, len(self.keys) - 1, -1)
            self.keys += [""] * grown
            self.start = np.concatenate([self.start, np.zeros(grown, np.uint64)])
            self.end = np.concatenate([self.end, np.zeros(grown, np.uint64)])
            self.serial = np.concatenate([self.serial, np.zeros(grown, np.int64)])
        taken = self._free[len(self._free) - count :]
        del self._free[len(self._free) - count :]
        slots = np.array(taken, np.int32)
        self.start[slots], self.end[slots] = segments[:, 0], segments[:, 0] + segments[:, 1]
        self.serial[slots] = np.arange(self._last_serial + 1, self._last_serial + 1 + count)
        self._last_serial += count
        for slot, key in zip(taken, keys, strict=False):
            self.keys[slot] = key
        return slots

    def remove(self, slots: Slots) -> None:
        """Free the slots that are taken."""
        known = np.unique(slots[(slots >= 0) & (slots < len(self.keys))])
        taken = known[self.serial[known] > 0]
        self.serial[taken] = 0
        for slot in taken.tolist():
            self.keys[slot] = ""
        self._free += taken.tolist()

    @property
    def outstanding(self) -> int:
        """How many segments are registered."""
        return int(np.count_nonzero(self.serial))

    def serials(self, slots: Slots) -> NDArray[np.int64]:
        """Return the serial number of each slot's segment; 0 for slots that are free or never were."""
        known = (slots >= 0) & (slots < len(self.keys))
        return (
            np.where(known, self.serial[np.where(known, slots, 0)], 0)
            if len(self.keys)
            else np.zeros(len(slots), np.int64)
        )

    def outside(self, slots: Slots, address: NDArray[np.uint64], length: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return the rows that leave the segment of their slot, or whose slot is free."""
        is_taken = self.serials(slots) > 0
        if not len(self.keys):
            return np.flatnonzero(~is_taken)
        at = np.where(is_taken, slots, 0)
        end = address + length
        return np.flatnonzero(~(is_taken & (self.start[at] <= address) & (address <= end) & (end <= self.end[at])))
