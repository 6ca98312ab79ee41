"""NIXL's descriptor lists: ranges of memory that can be appended to, changed and compared, kept as one numpy array."""

from __future__ import annotations

import operator
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np

from trunkline.errors import MetadataDecodeError
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind
from trunkline.nixl.descriptor_codec import decode_rows, encode_plain, encode_tagged
from trunkline.nixl.enumeration import nixl_mem_t
from trunkline.nixl.exception import nixlNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import SupportsIndex

    from trunkline.memory.descriptor import Rows

    Row: TypeAlias = tuple[Any, ...]

_LARGEST = 2**64 - 1


class DList:
    """Base of the three lists. Not for several threads at once while it is changed.

    Args:
        type: The kind of memory.
        descs: An N×3 array of uint64 or int64, C-contiguous, which is copied; a list of tuples; or how many
            descriptors of zeros there are.
        init_size: The same number, by its name.
    """

    _WIDTH: ClassVar[int] = 3

    __slots__ = ("_added", "_kind", "_rows")

    def __init__(self, type: nixl_mem_t, descs: Any = 0, init_size: int = 0) -> None:  # noqa: A002 - NIXL's name
        if not isinstance(type, nixl_mem_t):
            raise TypeError(f"{_name(self)}() takes a nixl_mem_t first, not {type!r}")
        self._kind = MemoryKind(type.value)
        self._added: list[tuple[int, int, int]] = []  # what was appended, until it is asked for
        if isinstance(descs, np.ndarray):
            self._rows = _array(descs, 3)
        elif isinstance(descs, list):
            self._rows = self._tuples(descs)
        else:
            self._rows = np.zeros((operator.index(descs) or init_size, 3), np.uint64)

    @property
    def rows(self) -> Rows:
        """The descriptors: address, length, device; shape (N, 3)."""
        if self._added:
            self._rows = np.concatenate([self._rows, np.array(self._added, np.uint64)])
            self._added = []
        return self._rows

    @property
    def kind(self) -> MemoryKind:
        """The kind of memory, as Trunkline calls it."""
        return self._kind

    def checked(self) -> DescriptorList:
        """Return it as Trunkline's own, checked list.

        Raises:
            DescriptorError: It is empty, or holds a range that can't be.
        """
        return DescriptorList.of(self._kind, self.rows)

    def getType(self) -> nixl_mem_t:
        return nixl_mem_t(int(self._kind))

    def descCount(self) -> int:
        return len(self._rows) + len(self._added)

    def isEmpty(self) -> bool:
        return not self.descCount()

    def append(self, desc: Row) -> None:
        """Add a descriptor at the end."""
        if not isinstance(desc, tuple):
            raise TypeError(f"a descriptor is a tuple, not a {_name(desc)}")
        if len(desc) < self._WIDTH:
            raise IndexError(f"a descriptor of this list has {self._WIDTH} elements, not {len(desc)}")
        self._added.append(_numbers(desc[:3]))

    addDesc = append

    def remDesc(self, index: SupportsIndex) -> None:
        """Remove a descriptor; those behind it move up."""
        self._delete(self._position(index))

    def clear(self) -> None:
        """Remove all."""
        self._rows, self._added = np.empty((0, 3), np.uint64), []

    def index(self, desc: Row) -> int:
        """Return where the first range equal to this one stands.

        Raises:
            nixlNotFoundError: There is none.
        """
        if len(desc) < self._WIDTH:
            raise IndexError(f"a descriptor of this list has {self._WIDTH} elements, not {len(desc)}")
        found = np.flatnonzero((self.rows == np.array(_numbers(desc[:3]), np.uint64)).all(axis=1))
        if not len(found):
            raise nixlNotFoundError(f"{desc!r} is not in this list of {self.descCount()}")
        return int(found[0])

    def print(self) -> None:
        """Print all descriptors."""
        print(f"DescList of mem type {int(self._kind)}", *self, sep="\n")  # noqa: T201 - what it is for

    def __getitem__(self, index: SupportsIndex) -> Row:
        return tuple(self.rows[self._position(index)].tolist())

    def __setitem__(self, index: SupportsIndex, desc: Row) -> None:
        if not isinstance(desc, tuple):
            raise TypeError(f"a descriptor is a tuple, not a {_name(desc)}")
        if len(desc) < self._WIDTH:
            raise IndexError(f"a descriptor of this list has {self._WIDTH} elements, not {len(desc)}")
        self.rows[self._position(index)] = _numbers(desc[:3])

    def __iter__(self) -> Iterator[Row]:
        return map(tuple, self.rows.tolist())

    def __contains__(self, desc: object) -> bool:
        return any(desc == each for each in self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DList):
            return False
        is_like = type(self) is type(other) and self._kind is other._kind and np.array_equal(self.rows, other.rows)
        return is_like and self._labels() == other._labels()

    __hash__ = None  # type: ignore[assignment] # it can be changed

    def __repr__(self) -> str:
        return f"<{_name(self)} {self._kind.name}: {self.descCount()} descriptors>"

    def _labels(self) -> Sequence[object]:
        """Return what each descriptor has beside its numbers."""
        return ()

    def _tuples(self, descs: list[Any]) -> Rows:
        return _rows_of(descs, 3)

    def _delete(self, position: int) -> None:
        self._rows = np.delete(self.rows, position, axis=0)

    def _position(self, index: SupportsIndex) -> int:
        position = operator.index(index)
        if not 0 <= position < self.descCount():
            raise IndexError(f"index {position} is outside this list of {self.descCount()} descriptors")
        return position


class _Bytes(DList):
    """What has a form in bytes: NIXL's own, in its container."""

    __slots__ = ()

    def to_bytes(self) -> bytes:
        """Return the list as NIXL writes it."""
        raise NotImplementedError

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the list that :meth:`to_bytes` wrote.

        Raises:
            MetadataDecodeError: It is none.
        """
        found = decode_list(data)
        if not isinstance(found, cls):
            raise MetadataDecodeError(f"these bytes are a {_name(found)}, not a {cls.__name__}", field="nixlDList")
        return found

    def __getstate__(self) -> bytes:
        """Return the list as NIXL's does: so its pickles are bytes of the container, too."""
        return self.to_bytes()

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return type(self).from_bytes, (self.to_bytes(),)


class nixlXferDList(_Bytes):
    """Ranges for a transfer: (address, length, device)."""

    __slots__ = ()

    def to_bytes(self) -> bytes:
        return encode_plain(self._kind, self.rows)


class nixlRegDList(_Bytes):
    """Ranges to register: (address, length, device, meta), the last one bytes; a string is taken, too."""

    _WIDTH = 4

    __slots__ = ("_meta",)

    def __init__(self, type: nixl_mem_t, descs: Any = 0, init_size: int = 0) -> None:  # noqa: A002 - NIXL's name
        self._meta: list[bytes] | None = None  # None: all are empty
        super().__init__(type, descs, init_size)

    @property
    def meta(self) -> list[bytes]:
        """What stands fourth in each descriptor."""
        if self._meta is None:
            self._meta = [b""] * self.descCount()
        return self._meta

    def trim(self) -> nixlXferDList:
        """Return the ranges alone."""
        return nixlXferDList(self.getType(), self.rows)

    def append(self, desc: Row) -> None:
        """Add a descriptor at the end."""
        meta = self.meta
        super().append(desc)
        meta.append(_meta_of(desc[3]))

    addDesc = append

    def clear(self) -> None:
        """Remove all."""
        super().clear()
        self._meta = None

    def to_bytes(self) -> bytes:
        return encode_tagged(self._kind, self.rows, self.meta)

    def __getitem__(self, index: SupportsIndex) -> Row:
        return (*super().__getitem__(index), self.meta[index])

    def __setitem__(self, index: SupportsIndex, desc: Row) -> None:
        super().__setitem__(index, desc)
        self.meta[index] = _meta_of(desc[3])

    def __iter__(self) -> Iterator[Row]:
        return ((*row, meta) for row, meta in zip(super().__iter__(), self.meta, strict=True))

    def _labels(self) -> Sequence[object]:
        return self.meta

    def _tuples(self, descs: list[Any]) -> Rows:
        rows = _rows_of(descs, 4)
        if any(desc[3] for desc in descs):
            self._meta = [_meta_of(desc[3]) for desc in descs]
        return rows

    def _delete(self, position: int) -> None:
        del self.meta[position]
        super()._delete(position)


class nixlRemoteDList(DList):
    """Ranges of several agents: (address, length, device, agent)."""

    _WIDTH = 4

    __slots__ = ("_agents",)

    def __init__(self, type: nixl_mem_t, descs: Any = 0, init_size: int = 0) -> None:  # noqa: A002 - NIXL's name
        if isinstance(descs, np.ndarray):
            raise TypeError("a nixlRemoteDList is made from a list of (address, length, device, agent)")
        self._agents: list[str] = [str(desc[3]) for desc in descs if len(desc) == 4] if isinstance(descs, list) else []
        super().__init__(type, descs, init_size)
        self._agents += [""] * (self.descCount() - len(self._agents))

    def append(self, desc: Row) -> None:
        """Add a descriptor at the end."""
        super().append(desc)
        self._agents.append(str(desc[3]))

    addDesc = append

    def clear(self) -> None:
        """Remove all."""
        super().clear()
        self._agents = []

    def __getitem__(self, index: SupportsIndex) -> Row:
        return (*super().__getitem__(index), self._agents[index])

    def __setitem__(self, index: SupportsIndex, desc: Row) -> None:
        super().__setitem__(index, desc)
        self._agents[index] = str(desc[3])

    def __iter__(self) -> Iterator[Row]:
        return ((*row, agent) for row, agent in zip(super().__iter__(), self._agents, strict=True))

    def _labels(self) -> Sequence[object]:
        return self._agents

    def _tuples(self, descs: list[Any]) -> Rows:
        return _rows_of(descs, 4)

    def _delete(self, position: int) -> None:
        del self._agents[position]
        super()._delete(position)


def strided_rows(descs: np.ndarray[Any, Any]) -> Rows:
    """Return N×5 descriptors (address, length, device, stride, count) as uint64.

    Raises:
        ValueError: They are none.
    """
    return _array(descs, 5)


def decode_list(data: bytes) -> nixlXferDList | nixlRegDList:
    """Return a list from its form in bytes: NIXL's own container, never a pickle.

    Raises:
        MetadataDecodeError: It is not one whole list.
    """
    kind, rows, meta = decode_rows(data)
    if meta is None:
        return nixlXferDList(nixl_mem_t(int(kind)), rows)
    found = nixlRegDList(nixl_mem_t(int(kind)), rows)
    if meta.size.any():
        found.meta[:] = meta
    return found


def _array(descs: np.ndarray[Any, Any], width: int) -> Rows:
    """Copy an array of descriptors. Negative numbers become large ones, as in NIXL."""
    if descs.ndim != 2 or descs.shape[1] != width:
        raise ValueError(f"descs must be a N×{width} numpy array, not of shape {descs.shape}")
    if descs.dtype.kind not in "iu" or descs.dtype.itemsize != 8:
        raise ValueError(f"descs must be a N×{width} numpy array of uint64 or int64, not of {descs.dtype}")
    return descs.astype(np.uint64, order="C")


def _rows_of(descs: list[Any], width: int) -> Rows:
    if set(map(type, descs)) - {tuple} and not all(isinstance(desc, tuple) for desc in descs):
        raise TypeError("each descriptor of a list must be a tuple")
    if set(map(len, descs)) - {width}:
        raise ValueError(f"each descriptor tuple must have exactly {width} elements")
    numbers = list(chain.from_iterable(desc[:3] if width > 3 else desc for desc in descs))
    if set(map(type, numbers)) - {int}:
        numbers = list(_numbers(tuple(numbers)))
    try:
        return np.array(numbers, np.uint64).reshape(-1, 3)
    except OverflowError as error:
        raise RuntimeError(f"a descriptor holds a number that is negative or above 2^64 - 1: {error}") from error


def _numbers(values: tuple[Any, ...]) -> Any:
    """Return integers that fit into 64 bits without a sign.

    Raises:
        RuntimeError: One is none (NIXL raises this, too).
    """
    try:
        numbers = tuple(map(operator.index, values))
    except TypeError as error:
        raise RuntimeError(f"a descriptor's address, length and device are integers: {error}") from error
    if not all(0 <= number <= _LARGEST for number in numbers):
        raise RuntimeError(f"a descriptor's numbers go from 0 to 2^64 - 1: {numbers}")
    return numbers


def _meta_of(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise RuntimeError(f"a descriptor's fourth element is a str or bytes, not a {_name(value)}")


def _name(value: object) -> str:
    return type(value).__name__
