"""Which registered segment covers a range.

Tables are immutable values: a change makes a new one, so look-ups need no lock. Slots are the numbers
that a backend gave to its segments (see ``trunkline.backend.contract``).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from trunkline.errors import NotRegisteredError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from trunkline.memory.descriptor import Rows
    from trunkline.memory.kind import MemoryKind

    Slots: TypeAlias = NDArray[np.int32]

NO_SLOT = -1


class SegmentTable:
    """The segments of one backend and kind, sorted by device and address. Immutable.

    Segments may overlap, nest and repeat.

    Attributes:
        segments: uint64, shape (N, 3): address, length, device; address + length is below 2^64.
        slots: int32, shape (N,): the slot of each segment.
    """

    __slots__ = ("_devices", "_ends", "_keys", "_reach", "_starts", "segments", "slots")

    def __init__(self, segments: Rows, slots: Slots) -> None:
        order = np.lexsort((segments[:, 0], segments[:, 2]))
        self.segments: Rows = segments[order]
        self.slots: Slots = slots[order]
        address, length, device = self.segments.T
        if (device == device[:1]).all():  # as on every host without GPUs; the index below is then not needed
            self._devices, device_rank = device[:1], np.zeros(len(order), dtype=np.intp)
            self._starts, self._keys = address, device_rank
        else:
            self._devices, device_rank = np.unique(device, return_inverse=True)
            # (device, address) as one sortable integer; addresses by rank, so that it fits into 64 bits.
            self._starts, start_rank = np.unique(address, return_inverse=True)
            self._keys = device_rank * (len(self._starts) + 1) + start_rank + 1
        # For each segment: which of those up to it, on the same device, reaches furthest. A running maximum of
        # (device, rank of end); it begins afresh with each device, since that is the high digit.
        self._ends: NDArray[np.uint64] = address + length
        if (self._ends[1:] >= self._ends[:-1]).all():  # each reaches furthest itself
            self._reach = np.arange(len(order))
        else:
            by_end = np.argsort(self._ends, kind="stable")
            end_rank = np.empty(len(order), dtype=np.intp)
            end_rank[by_end] = np.arange(len(order))
            furthest = np.maximum.accumulate(device_rank * len(order) + end_rank)
            self._reach = by_end[furthest % len(order)]

    def add(self, segments: Rows, slots: Slots) -> SegmentTable:
        """Return a table that also has these segments (checked rows, shape (N, 3)) with these slots (shape (N,))."""
        return SegmentTable(np.concatenate([self.segments, segments]), np.concatenate([self.slots, slots]))

    def remove(self, slots: Slots) -> SegmentTable:
        """Return a table without the segments of these slots.

        Raises:
            NotRegisteredError: One of the slots is not in the table.
        """
        missing = ~np.isin(slots, self.slots)
        if missing.any():
            slot = int(slots[np.argmax(missing)])
            raise NotRegisteredError(f"no segment has slot {slot}; {len(self)} are registered", slot=slot)
        return self.exchange(slots, EMPTY.segments, EMPTY.slots)

    def exchange(self, stale: Slots, segments: Rows, slots: Slots) -> SegmentTable:
        """Return a table without the segments of the slots ``stale`` (those that are there), but with others."""
        if not len(self):
            return SegmentTable(segments, slots)
        keep = ~np.isin(self.slots, stale)
        return SegmentTable(np.concatenate([self.segments[keep], segments]), np.concatenate([self.slots[keep], slots]))

    def covering(self, rows: Rows) -> Slots:
        """Return for each range the slot of one segment that covers all of it, or -1 (``NO_SLOT``).

        Two adjacent segments together don't cover a range across both: transports refuse such an access.

        Args:
            rows: Checked plain rows, shape (N, 3).
        """
        if not len(self):
            return np.full(len(rows), NO_SLOT, dtype=np.int32)
        address, length, device = (np.ascontiguousarray(column) for column in rows.T)
        if len(self) == 1:  # as where one pool of memory is registered
            covered = (device == self.segments[0, 2]) & (address >= self.segments[0, 0])
            covered &= address + length <= self._ends[0]  # a checked row's end is below 2^64
            return np.where(covered, self.slots[0], np.int32(NO_SLOT))
        # The last segment, in the order of the table, that does not start behind the range. If there is none on the
        # range's device this is one of another device (or, as -1, the table's last), which the checks refuse.
        if len(self._devices) == 1:
            position = np.searchsorted(self.segments[:, 0], address, side="right") - 1
        else:
            key = np.searchsorted(self._devices, device) * (len(self._starts) + 1)
            key += np.searchsorted(self._starts, address, side="right")
            position = np.searchsorted(self._keys, key, side="right") - 1
        best = self._reach[position]
        end = self._ends[best]
        covered = (position >= 0) & (self.segments[best, 2] == device)
        covered &= (end >= address) & (end - address >= length)
        return np.where(covered, self.slots[best], np.int32(NO_SLOT))

    def __len__(self) -> int:
        return len(self.slots)

    def __repr__(self) -> str:
        return f"<SegmentTable: {len(self)} segments on {len(self._devices)} devices>"


EMPTY = SegmentTable(np.empty((0, 3), dtype=np.uint64), np.empty(0, dtype=np.int32))
"""The table without segments."""


class Section:
    """All segments of an agent, by (backend name, kind).

    Any thread may call any method. Changes are made one at a time under a lock; look-ups take none and see
    the state before or after a change, never in between.

    Attributes:
        tables: The tables that have segments, as they are now. A change puts another mapping in its place; it is not
            for others to change.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.tables: Mapping[tuple[str, MemoryKind], SegmentTable] = {}

    def add(self, backend: str, kind: MemoryKind, segments: Rows, slots: Slots) -> None:
        """Add segments (checked rows, shape (N, 3)) that the backend registered under these slots."""
        with self._lock:
            self._replace(backend, kind, self.lookup(backend, kind).add(segments, slots))

    def remove(self, backend: str, kind: MemoryKind, slots: Slots) -> None:
        """Remove the segments of these slots.

        Raises:
            NotRegisteredError: One of the slots is not there; nothing is removed.
        """
        with self._lock:
            self._replace(backend, kind, self.lookup(backend, kind).remove(slots))

    def exchange(self, backend: str, kind: MemoryKind, stale: Slots, segments: Rows, slots: Slots) -> None:
        """Remove the segments of the slots ``stale`` (those that are there) and add others, as one change: no look-up
        sees one without the other.
        """
        with self._lock:
            self._replace(backend, kind, self.lookup(backend, kind).exchange(stale, segments, slots))

    def lookup(self, backend: str, kind: MemoryKind) -> SegmentTable:
        """Return the segments of one backend and kind (an empty table if there are none)."""
        return self.tables.get((backend, kind), EMPTY)

    def _replace(self, backend: str, kind: MemoryKind, table: SegmentTable) -> None:
        tables = {**self.tables, (backend, kind): table}
        self.tables = {key: kept for key, kept in tables.items() if len(kept)}

    def __repr__(self) -> str:
        parts = ", ".join(f"{backend} {kind.name}: {len(table)}" for (backend, kind), table in self.tables.items())
        return f"<Section {parts or 'empty'}>"


def find_rows(rows: Rows, table: Rows) -> NDArray[np.intp]:
    """Return for each row where in the table the same row (all three numbers) stands, or -1.

    Args:
        rows: Shape (N, 3), no row twice.
        table: Shape (M, 3), no row twice.
    """
    found = np.full(len(rows), -1, dtype=np.intp)
    if not len(rows) or not len(table):
        return found
    if np.array_equal(rows, table):
        return np.arange(len(rows))
    both = np.concatenate([table, rows])
    # The sort is stable: of two equal rows the table's comes first. On rows that are in order it is one cheap pass.
    order = np.lexsort((both[:, 1], both[:, 0], both[:, 2]))
    ordered = both[order]
    first = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1))
    found[order[first + 1] - len(table)] = order[first]
    return found
