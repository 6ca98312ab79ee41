"""Descriptor lists: which ranges of memory, as numpy arrays that are checked once and never change.

Rows are plain (address, length, device), shape (N, 3), or strided (address, length, device, stride,
count), shape (N, 5): ``count`` blocks of ``length`` bytes, ``stride`` bytes from one start to the next.
Blocks are numbered row by row. For FILE and BLOCK memory the address is an offset and the device a file
or device id; for OBJECT memory the device is the object's id.

Everything here is a pure value or a pure function and may be used from any thread.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

import numpy as np

from trunkline.errors import DescriptorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from trunkline.memory.kind import MemoryKind

    Rows: TypeAlias = NDArray[np.uint64]

MAX_BLOCKS = 1 << 26
"""The most blocks one list may stand for; expanded they take 24 bytes each (1.5 GiB at the bound)."""

_MAX_END = np.uint64(2**64 - 1)
_MAX_LENGTH = np.uint64(2**63 - 1)
_COLUMNS = {3: "address, length, device", 5: "address, length, device, stride, count"}


class DescriptorList:
    """Ranges of one kind of memory, in order. Never empty.

    Args:
        kind: The kind of memory.
        rows: Rows that are checked already, which the list takes over; for all others there is :meth:`of`.

    Attributes:
        kind: The kind of memory.
        rows: Read-only C-contiguous uint64 array, shape (N, 3) or (N, 5).
        count: How many blocks the rows stand for (N for plain rows).
    """

    __slots__ = ("_ends", "count", "kind", "rows")

    def __init__(self, kind: MemoryKind, rows: Rows) -> None:
        rows.setflags(write=False)
        self.kind = kind
        self.rows = rows
        self.count = len(rows)
        self._ends: NDArray[np.int64] | None = None
        if rows.shape[1] == 5:
            self._ends = np.cumsum(rows[:, 4].astype(np.int64))
            self.count = int(self._ends[-1])

    @classmethod
    def of(cls, kind: MemoryKind, rows: ArrayLike) -> DescriptorList:
        """Copy and check rows.

        Args:
            kind: The kind of memory.
            rows: An array of any integer dtype, or a sequence of integer tuples; shape (N, 3) or (N, 5), N ≥ 1.

        Raises:
            DescriptorError: A shape or dtype that does not fit, or a bad row, which is named with its values: a
                number that is negative or above 2^64 - 1, a length of 0 or of 2^63 and more, an end
                (address + length) above 2^64 - 1, a count of 0, blocks of a strided row that overlap
                (stride < length), or more than ``MAX_BLOCKS`` blocks in all.
        """
        array = _integers(kind, rows)
        _check(kind, array)
        return cls(kind, array)

    @property
    def is_strided(self) -> bool:
        """Whether rows stand for several blocks each."""
        return self._ends is not None

    @property
    def total_bytes(self) -> int:
        """Bytes of all blocks together, exact."""
        size = self.rows[:, 1]
        if self.is_strided:
            size = size * self.rows[:, 4]  # below 2^64: a row's blocks don't overlap and its end fits
        # Summed in two halves: the sum of many rows may pass 2^64.
        high = int((size >> np.uint64(32)).sum())
        low = int((size & np.uint64(0xFFFFFFFF)).sum())
        return (high << 32) + low

    def expand(self) -> DescriptorList:
        """Return the list with one plain row per block (itself if it is plain already)."""
        if not self.is_strided:
            return self
        return DescriptorList(self.kind, self._blocks(np.arange(self.count)))

    def select(self, indices: ArrayLike) -> DescriptorList:
        """Return the chosen blocks as plain rows, in the order given; only these are expanded.

        Args:
            indices: Block numbers, 1-D, of any integer dtype, at least one; repeats are allowed.

        Raises:
            DescriptorError: No integers, none at all, or an index outside 0 … count - 1, which is named.
        """
        try:
            chosen = np.asarray(indices)
        except ValueError as error:
            raise DescriptorError(
                f"blocks are selected by a 1-D integer array: {error}", kind=self.kind.name
            ) from error
        if chosen.dtype.kind not in "iu" or chosen.ndim != 1 or not chosen.size:
            raise DescriptorError(
                f"blocks are selected by a 1-D integer array with at least one index; "
                f"got dtype {chosen.dtype}, shape {chosen.shape}",
                kind=self.kind.name,
            )
        outside = (chosen < 0) | (chosen >= self.count)
        if outside.any():
            at = int(np.argmax(outside))
            raise DescriptorError(
                f"index {int(chosen[at])} (at position {at}) is outside this list of {self.count} "
                f"{self.kind.name} blocks; indices go from 0 to {self.count - 1}",
                kind=self.kind.name,
                position=at,
                index=int(chosen[at]),
                count=self.count,
            )
        return DescriptorList(self.kind, self._blocks(chosen.astype(np.int64, copy=False)))

    def row_of(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of some blocks, which must be there."""
        return blocks if self._ends is None else np.searchsorted(self._ends, blocks, side="right")

    def spans(self) -> Rows:
        """Return for each row the one range from its first block's start to its last one's end, shape (N, 3)."""
        if not self.is_strided:
            return self.rows
        spans = self.rows[:, :3].copy()
        spans[:, 1] += self.rows[:, 3] * (self.rows[:, 4] - np.uint64(1))
        return spans

    def _blocks(self, chosen: NDArray[np.int64]) -> Rows:
        if self._ends is None:
            return self.rows[chosen]
        row = self.row_of(chosen)
        strided = self.rows[row]
        within = chosen - self._ends[row] + strided[:, 4].astype(np.int64)
        blocks = strided[:, :3].copy()
        blocks[:, 0] += strided[:, 3] * within.astype(np.uint64)
        return blocks

    def __len__(self) -> int:
        """Return the number of rows (see ``count`` for blocks)."""
        return len(self.rows)

    def __getitem__(self, row: SupportsIndex) -> tuple[int, ...]:
        """Return one row as a tuple of ints."""
        return tuple(self.rows[operator.index(row)].tolist())

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return map(tuple, self.rows.tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DescriptorList):
            return NotImplemented
        return self.kind == other.kind and np.array_equal(self.rows, other.rows)

    def __hash__(self) -> int:
        return hash((self.kind, self.rows.tobytes()))

    def __repr__(self) -> str:
        blocks = f", {self.count} blocks" if self.is_strided else ""
        return f"<DescriptorList {self.kind.name}: {len(self)} rows{blocks}, {self.total_bytes} bytes>"


def coalesce(
    sides: Sequence[Rows],
    keep_apart: Sequence[NDArray[Any]] = (),
    *,
    max_length: int | None = None,
) -> tuple[list[Rows], NDArray[np.intp]]:
    """Merge neighbouring rows that are contiguous on every side.

    Row i + 1 joins row i if on every side it starts where row i ends, on the same device, and every label
    array has the same value for both. One pass, in the order given.

    Args:
        sides: Arrays of shape (N, 3), as in checked plain lists, with equal lengths (column 1); N ≥ 1.
        keep_apart: Label arrays of shape (N,): rows with different labels are not merged.
        max_length: No merged row is longer than this (a row that is longer by itself stays as it is). Cuts fall
            on multiples of it, counted from the start of the contiguous run.

    Returns:
        The merged sides, each of shape (M, 3) (the same arrays where nothing merged), and for each merged row the
        number of its first original row, shape (M,).
    """
    joined = np.ones(len(sides[0]) - 1, dtype=bool)
    for side in sides:
        address, length, device = side[:, 0], side[:, 1], side[:, 2]
        joined &= address[:-1] + length[:-1] == address[1:]
        joined &= device[:-1] == device[1:]
    for label in keep_apart:
        joined &= label[:-1] == label[1:]
    if max_length is not None:
        _cut(joined, sides[0], np.uint64(max_length))
    starts = _run_starts(joined)
    if len(starts) == len(sides[0]):
        return list(sides), starts
    length = np.add.reduceat(sides[0][:, 1], starts)
    merged = [side[starts] for side in sides]
    for side in merged:
        side[:, 1] = length
    return merged, starts


def split(sides: Sequence[Rows], max_length: int) -> tuple[list[Rows], NDArray[np.intp]]:
    """Cut rows that are longer than ``max_length`` bytes into pieces of at most that length.

    Args:
        sides: Arrays of shape (N, 3), as in checked plain lists, with equal lengths (column 1).
        max_length: At least 1.

    Returns:
        The cut sides, each of shape (M, 3) (the same arrays where nothing was cut), and for each piece the number
        of the row it comes from, shape (M,).

    Raises:
        DescriptorError: There would be more than ``MAX_BLOCKS`` pieces.
    """
    limit = np.uint64(max_length)
    length = sides[0][:, 1]
    pieces = (length - np.uint64(1)) // limit + np.uint64(1)
    if int(pieces.max()) == 1:
        return list(sides), np.arange(len(length))
    if int(pieces.max()) > MAX_BLOCKS or int(pieces.sum()) > MAX_BLOCKS:
        raise DescriptorError(
            f"cutting {len(length)} rows into pieces of {max_length} bytes would make more than {MAX_BLOCKS} pieces",
            max_length=max_length,
        )
    counts = pieces.astype(np.int64)
    origin = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(origin)) - np.repeat(np.cumsum(counts) - counts, counts)
    offset = within.astype(np.uint64) * limit
    cut = [side[origin] for side in sides]
    for side in cut:
        side[:, 0] += offset
        side[:, 1] = np.minimum(side[:, 1] - offset, limit)
    return cut, origin


def _run_starts(joined: NDArray[np.bool_]) -> NDArray[np.intp]:
    return np.concatenate([np.zeros(1, dtype=np.intp), np.flatnonzero(~joined) + 1])


def _cut(joined: NDArray[np.bool_], side: Rows, max_length: np.uint64) -> None:
    """Part neighbours that don't both lie within one multiple of ``max_length``, counted from their run's start."""
    runs = _run_starts(joined)
    origin = np.repeat(side[runs, 0], np.diff(runs, append=len(side)))
    start = side[:, 0] - origin
    last = start + side[:, 1] - np.uint64(1)
    joined &= start[:-1] // max_length == last[1:] // max_length


def _integers(kind: MemoryKind, rows: ArrayLike) -> Rows:
    """Copy to a C-contiguous uint64 array of a right shape, without wrapping or rounding a number."""
    try:
        array = np.array(rows, order="C")
        if not isinstance(rows, np.ndarray) and array.dtype.kind == "f" and array.size:
            # numpy makes floats of lists in which small integers stand beside some above 2^63.
            array = np.array(rows, dtype=object)
    except (ValueError, TypeError, OverflowError) as error:
        raise DescriptorError(f"{kind.name} descriptors are rows of equal length: {error}", kind=kind.name) from error
    if array.ndim != 2 or array.shape[1] not in _COLUMNS or not len(array):
        raise DescriptorError(
            f"{kind.name} descriptors have shape (N, 3): {_COLUMNS[3]}, or (N, 5): {_COLUMNS[5]}, "
            f"with N at least 1; got shape {array.shape}",
            kind=kind.name,
            shape=array.shape,
        )
    if array.dtype.kind == "O":
        _refuse(kind, array, _not_uint64(array), "holds something that is not an integer from 0 to 2^64 - 1")
    elif array.dtype.kind == "i":
        _refuse(kind, array, array.min(axis=1) < 0, "has a negative number")
    elif array.dtype.kind != "u":
        raise DescriptorError(f"{kind.name} descriptors are integers; got dtype {array.dtype}", kind=kind.name)
    return array.astype(np.uint64, copy=False)


def _not_uint64(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows of an object array hold anything but integers that fit; the rare path, in Python."""
    return np.array([not all(_is_uint64(value) for value in row) for row in array])


def _is_uint64(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= int(value) < 2**64


def _check(kind: MemoryKind, rows: Rows) -> None:
    address, length = rows[:, 0], rows[:, 1]
    one = np.uint64(1)
    _refuse(kind, rows, length == 0, "has a length of 0")
    _refuse(kind, rows, length > _MAX_LENGTH, "has a length of 2^63 bytes or more")
    _refuse(kind, rows, length > _MAX_END - address, "ends beyond 2^64 - 1")
    if rows.shape[1] == 3:
        return
    stride, count = rows[:, 3], rows[:, 4]
    _refuse(kind, rows, count == 0, "has a count of 0")
    _refuse(kind, rows, count > np.uint64(MAX_BLOCKS), f"has more than {MAX_BLOCKS} blocks")
    _refuse(kind, rows, (count > one) & (stride < length), "has blocks that overlap (stride below length)")
    room = (_MAX_END - address - length) // np.maximum(stride, one)
    _refuse(kind, rows, (count > one) & (count - one > room), "has a last block that ends beyond 2^64 - 1")
    total = int(count.sum())
    if total > MAX_BLOCKS:
        raise DescriptorError(
            f"{len(rows)} strided {kind.name} rows stand for {total} blocks; one list may hold {MAX_BLOCKS}",
            kind=kind.name,
            count=total,
        )


def _refuse(kind: MemoryKind, rows: NDArray[Any], bad: NDArray[np.bool_], fault: str) -> None:
    if not bad.any():
        return
    row = int(np.argmax(bad))
    values = tuple(rows[row].tolist())
    raise DescriptorError(
        f"row {row} of {len(rows)} {kind.name} descriptors {fault}: ({_COLUMNS[len(values)]}) = {values}",
        kind=kind.name,
        row=row,
        values=values,
    )
