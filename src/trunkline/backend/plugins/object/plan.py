"""A posting turned into requests to a store: which ranges of which objects, and where their bytes go in memory."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.backend.contract import Operation, Posting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

COALESCE = 64 << 10
"""Ranges of an object no further apart are read by one request; the bytes between are thrown away."""

LONGEST_LINE = float(1 << 62)
"""Offsets of all objects of a transfer, one object after the other, are counted in 64 bits."""

MOST_PARTS = 10_000
"""S3's limit for one upload."""

_COPIED_ALONE = 64 << 10
"""Pieces from this size on are copied one by one, smaller ones of equal size together."""


class Plan:
    """Parts, each read by one request or sent as one part of an object, and their pieces in memory.

    Args:
        posting: What to move.
        keys: The objects' keys.
        objects: The number of each row's object.
        part_size: Most bytes of a part; more than COALESCE, so that none lies between what is wanted.

    Attributes:
        keys: The objects.
        jobs: Numbers of the first part of each job, and the number of parts: READ has a job for each part, WRITE one
            for each object.
        part_object: The object of each part.
        part_start: Where it starts in the object.
        part_end: Where it ends.
        chunk: For WRITE, the part size of each object's upload.
        obstacle: Why it can't be carried out, or empty.
    """

    def __init__(self, posting: Posting, keys: list[str], objects: Integers, part_size: int) -> None:
        self.keys = keys
        self.operation = posting.operation
        self.obstacle = ""
        self.total = int(posting.length.sum(dtype=np.uint64))
        rows = np.flatnonzero(posting.length)
        offset = posting.remote_address[rows].astype(np.int64)
        order = np.lexsort((offset, objects[rows]))
        rows, offset = rows[order], offset[order]
        owner, length = objects[rows], posting.length[rows].astype(np.int64)
        local = posting.local_address[rows].astype(np.int64)
        begins = np.flatnonzero(np.diff(owner, prepend=-1))
        if self.operation is Operation.WRITE:
            self.obstacle = _gap(keys, owner, offset, length, begins)
            if self.obstacle:
                return
        # All objects on one line, further apart than what is read across.
        low = np.zeros(len(keys), np.int64)
        low[owner[begins]] = offset[begins]
        reach = np.zeros(len(keys), np.int64)
        np.maximum.at(reach, owner, offset + length)
        span = reach - low + COALESCE + 1
        if span.sum(dtype=np.float64) >= LONGEST_LINE:
            self.obstacle = "its objects' ranges are too far apart for one transfer: make several of it"
            return
        base = np.cumsum(span) - span - low
        first, last = base[owner] + offset, base[owner] + offset + length
        furthest = np.maximum.accumulate(last)
        is_new = np.concatenate([np.ones(min(1, len(rows)), np.bool_), first[1:] > furthest[:-1] + COALESCE])
        opens = np.flatnonzero(is_new)
        closes = np.append(opens[1:] - 1, len(rows) - 1)[: len(opens)]
        start, end, of = first[opens], furthest[closes], owner[opens]
        chunk = np.full(len(opens), part_size, np.int64)
        if self.operation is Operation.WRITE:
            # In whole MiB: some stores want all parts but the last to be of one such size.
            least = -(-(end - start) // MOST_PARTS)
            chunk = np.where(least > chunk, -(-least >> 20) << 20, chunk)
        count = -(-(end - start) // chunk)
        run = np.repeat(np.arange(len(opens)), count)
        nth = np.arange(len(run)) - np.repeat(np.cumsum(count) - count, count)
        part_first = start[run] + nth * chunk[run]
        part_last = np.minimum(end[run], part_first + chunk[run])
        self.chunk = chunk
        self.part_object = of[run]
        self.part_start, self.part_end = part_first - base[of[run]], part_last - base[of[run]]
        jobs = np.arange(len(run)) if self.operation is Operation.READ else np.flatnonzero(nth == 0)
        self.jobs = np.append(jobs, len(run))
        self._place(posting, rows, (first, last, local), (part_first, part_last))

    def _place(
        self, posting: Posting, rows: NDArray[np.intp], row: tuple[Integers, ...], part: tuple[Integers, ...]
    ) -> None:
        """Cut the rows at the ends of parts."""
        first, last, local = row
        part_first, part_last = part
        self._row_first = np.zeros(len(posting.length), np.int64)
        self._row_last = np.full(len(posting.length), -1, np.int64)
        from_part = np.searchsorted(part_first, first, side="right") - 1
        to_part = np.searchsorted(part_first, last - 1, side="right") - 1
        self._row_first[rows], self._row_last[rows] = from_part, to_part
        count = to_part - from_part + 1
        index = np.repeat(np.arange(len(rows)), count)
        number = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count) + from_part[index]
        begin = np.maximum(first[index], part_first[number])
        length = np.minimum(last[index], part_last[number]) - begin
        place = local[index] + begin - first[index]
        order = np.argsort(number, kind="stable")
        number, within, place, length = number[order], (begin - part_first[number])[order], place[order], length[order]
        follows = (
            (number[1:] == number[:-1])
            & (within[1:] == within[:-1] + length[:-1])
            & (place[1:] == place[:-1] + length[:-1])
        )
        head = np.flatnonzero(np.concatenate([np.ones(min(1, len(number)), np.bool_), ~follows]))
        self._within, self._local = within[head], place[head]
        self._length = np.add.reduceat(length, head) if len(head) else length
        self._cuts = np.searchsorted(number[head], np.arange(len(part_first) + 1))
        self.part_bytes = np.add.reduceat(self._length, self._cuts[:-1]) if len(head) else length
        """How many bytes each part moves."""

    def completed(self, done: NDArray[np.bool_]) -> int:
        """Return how many leading rows have all their parts among those that are done."""
        counted = np.concatenate([[0], np.cumsum(done)])
        lacking = counted[self._row_last + 1] - counted[self._row_first] < self._row_last - self._row_first + 1
        short = np.flatnonzero(lacking)
        return int(short[0]) if len(short) else len(lacking)

    def scatter(self, part: int, data: Any) -> None:
        """Copy a part's bytes to where they belong in memory."""
        pieces = slice(self._cuts[part], self._cuts[part + 1])
        source = np.frombuffer(data, np.uint8).ctypes.data + self._within[pieces]
        _copy(self._local[pieces], source, self._length[pieces])

    def gather(self, part: int) -> NDArray[np.uint8]:
        """Return a part's bytes, copied from memory."""
        pieces = slice(self._cuts[part], self._cuts[part + 1])
        data = np.empty(int(self.part_end[part] - self.part_start[part]), np.uint8)
        _copy(data.ctypes.data + self._within[pieces], self._local[pieces], self._length[pieces])
        return data


class _Memory:
    """``count`` overlapping items of ``size`` bytes, one at every address from ``start`` on."""

    def __init__(self, start: int, count: int, size: int) -> None:
        self.__array_interface__ = {
            "data": (start, False),
            "shape": (count,),
            "strides": (1,),
            "typestr": f"|V{size}",
            "version": 3,
        }


def _items(address: Integers, size: int) -> tuple[NDArray[Any], Integers]:
    start = int(address.min())
    return np.asarray(_Memory(start, int(address.max()) - start + 1, size)), address - start


def _copy(to: Integers, source: Integers, length: Integers) -> None:
    """Copy pieces between addresses; loops over the different lengths, and over pieces that are large."""
    for size in np.unique(length).tolist():
        chosen = length == size
        if size >= _COPIED_ALONE or np.count_nonzero(chosen) == 1:
            for target, origin in zip(to[chosen].tolist(), source[chosen].tolist(), strict=True):
                ctypes.memmove(target, origin, size)
        else:
            target_items, target_index = _items(to[chosen], size)
            source_items, source_index = _items(source[chosen], size)
            target_items[target_index] = source_items[source_index]


def _gap(keys: list[str], owner: Integers, offset: Integers, length: Integers, begins: NDArray[np.intp]) -> str:
    """Say what is wrong with rows, sorted by object and offset, that do not make whole objects."""
    expected = np.concatenate([[0], offset[:-1] + length[:-1]])[: len(offset)]
    expected[begins] = 0
    wrong = np.flatnonzero(offset != expected)
    if not len(wrong):
        return ""
    row = int(wrong[0])
    key, at, want = keys[int(owner[row])], int(offset[row]), int(expected[row])
    if at > want:
        what = f"bytes {want} to {at - 1} of object {key!r} are missing"
    else:
        what = f"bytes {at} to {want - 1} of object {key!r} are written twice"
    return f"{what}: objects are written whole, by rows of one transfer that cover them once from byte 0 to their end"
