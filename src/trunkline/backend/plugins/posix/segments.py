"""The registered segments of the backend: which file a slot is in, and whether it still is what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.backend.contract import Slots

MEMORY = -1
"""Instead of a file, for segments of memory."""


class Segments:
    """Slots, given out and taken back. The caller guards it with a lock."""

    def __init__(self) -> None:
        self._file = np.empty(0, np.int64)
        self._device = np.empty(0, np.uint64)
        self._tenancy = np.empty(0, np.int64)  # odd: in use; every change of hands counts one up
        self._free = np.empty(0, np.int32)

    def add(self, files: NDArray[np.int64], devices: NDArray[np.uint64]) -> Slots:
        """Return slots for segments in these files, which go by these device numbers."""
        count, missing = len(files), len(files) - len(self._free)
        if missing > 0:
            size = len(self._file)
            more = max(missing, size, 64)
            self._free = np.concatenate([np.arange(size + more, size, -1, dtype=np.int32) - 1, self._free])
            self._file = np.concatenate([self._file, np.zeros(more, np.int64)])
            self._device = np.concatenate([self._device, np.zeros(more, np.uint64)])
            self._tenancy = np.concatenate([self._tenancy, np.zeros(more, np.int64)])
        split = len(self._free) - count
        slots, self._free = self._free[split:][::-1].copy(), self._free[:split]
        self._file[slots], self._device[slots] = files, devices
        self._tenancy[slots] += 1
        return slots

    def ambiguous(self, files: NDArray[np.int64], devices: NDArray[np.uint64]) -> int | None:
        """Return a row whose device number would stand for two files, or already stands for another."""
        used = np.flatnonzero((self._tenancy % 2 == 1) & (self._file != MEMORY) & np.isin(self._device, devices))
        device, file = np.append(self._device[used], devices), np.append(self._file[used], files)
        _, first, which = np.unique(device, return_index=True, return_inverse=True)
        others = np.flatnonzero(file[first[which]] != file) - len(used)
        return int(others[others >= 0][0]) if len(others) else None

    def remove(self, slots: Slots) -> NDArray[np.int64]:
        """Take slots back and return the files they were in; slots that are not given out are ignored."""
        known = np.unique(slots[(slots >= 0) & (slots < len(self._file))])
        known = known[self._tenancy[known] % 2 == 1]
        self._tenancy[known] += 1
        self._free = np.concatenate([self._free, known])
        return self.files(known)

    def files(self, slots: Slots) -> NDArray[np.int64]:
        """Return the file each slot is in."""
        return self._file.take(slots)

    def tenancy(self, slots: Slots) -> NDArray[np.int64]:
        """Return numbers that change when a slot passes to another segment; odd while it is given out, else -1."""
        inside = (slots >= 0) & (slots < len(self._file))
        found = np.full(len(slots), -1, np.int64)
        found[inside] = self._tenancy[slots[inside]]
        found[found % 2 == 0] = -1
        return found

    @property
    def count(self) -> int:
        """How many slots are given out."""
        return len(self._file) - len(self._free)
