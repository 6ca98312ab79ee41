"""Views of registered memory: the two sides of a transfer.

``Agent.register`` returns local views, ``peer[name]`` remote ones. Both index alike along the leading axis: an integer,
a slice, or a one-dimensional array of integers (any order, no copies are made, nothing is touched). A group indexes all
its members at once, so that one transfer moves the same blocks of each.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np

from trunkline.errors import ShapeMismatchError, UnsupportedBufferError
from trunkline.memory.descriptor import DescriptorList

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterator, Mapping

    from numpy.typing import NDArray

    from trunkline.memory.kind import MemoryKind
    from trunkline.transfer.target import Target

ViewT = TypeVar("ViewT", bound="TensorView")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TensorView:
    """Blocks of one registered tensor. Immutable, usable from any thread; keeps nothing registered by itself.

    Attributes:
        name: The tensor's name in the catalog.
        agent: The name of the agent that owns the memory.
        kind: Kind of memory.
        device: Device number.
        address: Address of the first element.
        dtype: Element type as safetensors writes it (``BF16``), or None for bytes without a type.
        shape: The view's shape.
        item_bits: Size of one element, in bits.
        rows: Which rows of the leading axis, in which order; None for all of them in place.
        readonly: Whether transfers may only read it.
        registration: Number of the registration that made it (0 for remote views).
        target: The peer whose memory it is (None for local views).
    """

    name: str
    agent: str
    kind: MemoryKind
    device: int
    address: int
    dtype: str | None
    shape: tuple[int, ...]
    item_bits: int
    rows: NDArray[np.int64] | None = None
    readonly: bool = False
    registration: int = 0
    target: Target | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * self.item_bits // 8

    @property
    def row_bytes(self) -> int:
        """Size of one row of the leading axis, in bytes.

        Raises:
            IndexError: Rows of small elements (``F4``) do not start at whole bytes.
        """
        size, rest = divmod(prod(self.shape[1:]) * self.item_bits, 8)
        if rest:
            raise IndexError(f"the rows of {self!r} do not start at whole bytes: it can only be moved as a whole")
        return size

    def descriptors(self) -> NDArray[np.uint64]:
        """Return N×3 rows (address, length, device): one per selected row, or one for a view in place."""
        if self.rows is None:
            return np.array([[self.address, self.nbytes, self.device]], np.uint64)
        table = np.empty((len(self.rows), 3), np.uint64)
        table[:, 0] = self.rows
        table[:, 0] *= np.uint64(self.row_bytes)
        table[:, 0] += np.uint64(self.address)
        table[:, 1] = self.row_bytes
        table[:, 2] = self.device
        return table

    def by_row(self) -> Self:
        """Return the same view with its rows written out, so that it pairs with a scattered one."""
        if self.rows is not None or not self.shape:
            return self
        return self._replace(rows=np.arange(self.shape[0], dtype=np.int64))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"{self!r} has no axis to take a length of")
        return self.shape[0]

    def __getitem__(self, index: Any) -> Self:
        """Select along the leading axis.

        Args:
            index: An integer, a slice, or a one-dimensional list or array of integers (or of one boolean per row).

        Raises:
            IndexError: Out of range, or no such index.
        """
        if not self.shape:
            raise IndexError(f"{self!r} has no axis to index")
        count = self.shape[0]
        if isinstance(index, slice):
            return self._slice(range(*index.indices(count)))
        if isinstance(index, (list, np.ndarray, range)) or (hasattr(index, "__array__") and np.ndim(index) > 0):
            return self._gather(np.asarray(index), count)
        try:
            row = operator.index(index)
        except TypeError:
            raise IndexError(
                f"{self!r} is indexed along its leading axis by an integer, a slice or a 1-D list of integers, "
                f"not by {index!r}"
            ) from None
        if not -count <= row < count:
            raise IndexError(f"row {row} is out of range for {self!r}")
        row %= count
        if self.rows is not None:
            row = int(self.rows[row])
        return self._replace(address=self.address + row * self.row_bytes, shape=self.shape[1:], rows=None)

    def _slice(self, rows: range) -> Self:
        if not rows:
            raise IndexError(f"an empty selection of {self!r}: there would be nothing to transfer")
        if self.rows is not None:
            picked = self.rows[np.arange(rows.start, rows.stop, rows.step)]
            return self._replace(shape=(len(picked), *self.shape[1:]), rows=picked)
        if rows.step == 1:
            start = self.address + rows.start * self.row_bytes
            return self._replace(address=start, shape=(len(rows), *self.shape[1:]))
        return self._gather(np.arange(rows.start, rows.stop, rows.step), self.shape[0])

    def _gather(self, index: NDArray[Any], count: int) -> Self:
        if index.ndim != 1:
            raise IndexError(f"{self!r} takes a one-dimensional index, not one of shape {index.shape}")
        if index.dtype == np.bool_:
            if len(index) != count:
                raise IndexError(f"a mask of {len(index)} for the {count} rows of {self!r}")
            index = np.flatnonzero(index)
        if len(index) == 0:
            raise IndexError(f"an empty selection of {self!r}: there would be nothing to transfer")
        if index.dtype.kind not in "iu":
            raise IndexError(f"{self!r} is indexed by integers, not by {index.dtype}")
        rows = index.astype(np.int64)
        if index.dtype.kind == "i" and int(rows.min()) < 0:
            rows = np.where(rows < 0, rows + count, rows)
        wrong = (rows < 0) | (rows >= count)
        if wrong.any():
            raise IndexError(f"row {index[int(np.argmax(wrong))]} is out of range for {self!r}")
        if self.rows is not None:
            rows = self.rows[rows]
        return self._replace(shape=(len(rows), *self.shape[1:]), rows=rows)

    def _replace(self, **changes: Any) -> Self:
        values = {name: getattr(self, name) for name in TensorView.__slots__}
        return type(self)(**{**values, **changes})

    def __repr__(self) -> str:
        scattered = "" if self.rows is None else ", scattered"
        return (
            f"{type(self).__name__}({self.name!r} of {self.agent!r}, {self.dtype or 'bytes'}"
            f"{list(self.shape)}, {self.kind.name}{scattered})"
        )


class LocalTensor(TensorView):
    """Memory this agent registered. Index it; pass it to ``read(into=…)`` or ``write``."""

    __slots__ = ()


class RemoteTensor(TensorView):
    """Memory a peer offers. Index it; pass it to ``read`` or ``write(to=…)``."""

    __slots__ = ()


class TensorGroup(Generic[ViewT]):
    """Named tensors that are selected together: ``group[ids]`` takes the same rows of every member.

    ``group["layer.0"]`` is one member. Immutable, usable from any thread.
    """

    __slots__ = ("_members", "name")

    def __init__(self, name: str, members: Mapping[str, ViewT]) -> None:
        self.name = name
        self._members = dict(members)

    @property
    def nbytes(self) -> int:
        """Size of all members, in bytes."""
        return sum(view.nbytes for view in self._members.values())

    def items(self) -> ItemsView[str, ViewT]:
        return self._members.items()

    def keys(self) -> list[str]:
        return list(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __len__(self) -> int:
        """The number of members."""
        return len(self._members)

    def __getitem__(self, index: Any) -> Any:
        """Return one member by name, or a group with the same selection of every member.

        Raises:
            KeyError: No member of that name.
            IndexError: As for a tensor.
            ShapeMismatchError: The members' leading axes differ, so one index can't serve them all.
        """
        if isinstance(index, str):
            try:
                return self._members[index]
            except KeyError:
                raise KeyError(f"group {self.name!r} has no member {index!r}; it has {self.keys()[:8]}") from None
        lengths = {view.shape[:1] for view in self._members.values()}
        if len(lengths) != 1:
            raise ShapeMismatchError(
                f"group {self.name!r} can't be indexed as one: its members' leading axes are {sorted(lengths)}"
            )
        return TensorGroup(self.name, {name: view[index] for name, view in self._members.items()})

    def __repr__(self) -> str:
        first = next(iter(self._members.values()), None)
        return f"TensorGroup({self.name!r}: {len(self)} members like {first!r})"


def as_views(side: Any, wanted: type[ViewT], role: str) -> dict[str, ViewT]:
    """Return the views of one side of a transfer by member name; refuse everything else by name.

    Raises:
        UnsupportedBufferError: Not a view of registered memory of the wanted side.
    """
    if isinstance(side, wanted):
        return {"": side}
    if isinstance(side, TensorGroup) and all(isinstance(view, wanted) for _, view in side.items()):
        return dict(side.items())
    if isinstance(side, (TensorView, TensorGroup)):
        raise UnsupportedBufferError(f"{role} must be {_SIDES[wanted.__name__]}, not {side!r}")
    raise UnsupportedBufferError(
        f"{role} must be {_SIDES[wanted.__name__]}, not a {type(side).__name__}: index what register() returned "
        "(an array indexed by a list is a copy that nobody would see filled)"
    )


_SIDES = {
    "LocalTensor": "a view of this agent's registered memory",
    "RemoteTensor": "a view of a peer's memory (peer[name])",
}


def pair_views(
    local: Mapping[str, LocalTensor], remote: Mapping[str, RemoteTensor]
) -> tuple[DescriptorList, DescriptorList]:
    """Check that two sides fit and return their blocks, pairwise equal in length.

    Raises:
        ShapeMismatchError: Members, shapes or dtypes differ.
    """
    if local.keys() != remote.keys():
        raise ShapeMismatchError(
            f"the two groups have different members: {list(local)[:8]} here, {list(remote)[:8]} at the peer"
        )
    near: list[NDArray[np.uint64]] = []
    far: list[NDArray[np.uint64]] = []
    kinds: set[tuple[MemoryKind, MemoryKind]] = set()
    for name, mine in local.items():
        theirs = remote[name]
        if mine.shape != theirs.shape or mine.item_bits != theirs.item_bits or not _same_dtype(mine, theirs):
            raise ShapeMismatchError(f"{mine!r} and {theirs!r} don't fit each other", local=mine, remote=theirs)
        kinds.add((mine.kind, theirs.kind))
        if mine.rows is None and theirs.rows is None:
            near.append(mine.descriptors())
            far.append(theirs.descriptors())
        else:
            near.append(mine.by_row().descriptors())
            far.append(theirs.by_row().descriptors())
    if len(kinds) != 1:
        raise ShapeMismatchError("the members of one transfer must all lie in the same kind of memory on each side")
    ((local_kind, remote_kind),) = kinds
    return DescriptorList.of(local_kind, np.concatenate(near)), DescriptorList.of(remote_kind, np.concatenate(far))


def _same_dtype(mine: TensorView, theirs: TensorView) -> bool:
    return mine.dtype == theirs.dtype or mine.dtype is None or theirs.dtype is None
