"""One registration of an agent's memory, and the values it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.catalog import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from trunkline.backend.contract import Slots
    from trunkline.memory.buffer import Buffer
    from trunkline.memory.descriptor import Rows

SHARED = (MemoryKind.DRAM, MemoryKind.VRAM)
"""The kinds that peers can reach; files and objects are the agent's own."""


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """Memory registered in one call.

    Attributes:
        agent: The agent that it was registered with.
        number: Tells registrations of one agent apart.
        name: The name peers see in the catalog, or None.
        descriptors: The registered segments.
        slots: The backends' numbers for them, by backend name.
        entries: What the catalog says of it.
        group: Whether the name stands for a group of tensors.
        owners: What keeps the memory alive.
        keys: Paths and keys of files' and objects' segments, by kind of memory.
    """

    agent: str
    number: int
    name: str | None
    descriptors: tuple[DescriptorList, ...]
    slots: Mapping[tuple[str, MemoryKind], Slots]
    entries: tuple[TensorEntry, ...] = ()
    group: bool = False
    owners: tuple[Any, ...] = ()
    keys: Mapping[MemoryKind, tuple[str, ...]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(descriptors.total_bytes for descriptors in self.descriptors)

    def __repr__(self) -> str:
        return f"<Registration {self.name or self.number}: {self.nbytes:,} bytes>"


def entry_of(name: str, buffer: Buffer) -> TensorEntry:
    """Return what the catalog says of a buffer."""
    return TensorEntry(
        name=name,
        kind=buffer.kind,
        dtype=buffer.dtype,
        shape=buffer.shape,
        address=buffer.address,
        nbytes=buffer.nbytes,
        device=buffer.device,
    )


def keys_of(buffers: Iterable[Buffer]) -> dict[MemoryKind, tuple[str, ...]]:
    """Return the paths and keys of files and objects, in the order of :func:`descriptors_of`."""
    found: dict[MemoryKind, list[str]] = {}
    for buffer in buffers:
        if buffer.kind not in SHARED:
            found.setdefault(buffer.kind, []).append(buffer.name)
    return {kind: tuple(names) for kind, names in found.items() if any(names)}


def descriptors_of(buffers: Iterable[Buffer]) -> tuple[DescriptorList, ...]:
    """One list per kind of memory."""
    rows: dict[MemoryKind, list[tuple[int, int, int]]] = {}
    for buffer in buffers:
        rows.setdefault(buffer.kind, []).append((buffer.address, buffer.nbytes, buffer.device))
    return tuple(DescriptorList.of(kind, np.array(table, np.uint64)) for kind, table in rows.items())


def match_once(rows: Rows, wanted: Rows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pair equal rows, each at most once, the last first; return which rows of each array found a partner."""
    if np.array_equal(rows, wanted):
        return np.ones(len(rows), bool), np.ones(len(wanted), bool)
    numbered = np.concatenate([np.column_stack([side, _occurrence(side)]) for side in (rows, wanted)])
    _, number = np.unique(numbered, axis=0, return_inverse=True)
    mine, theirs = number.reshape(-1)[: len(rows)], number.reshape(-1)[len(rows) :]
    return np.isin(mine, theirs), np.isin(theirs, mine)


def _occurrence(rows: Rows) -> NDArray[np.uint64]:
    """Return for each row how many equal ones stand behind it."""
    _, number = np.unique(rows, axis=0, return_inverse=True)
    number = number.reshape(-1)
    order = np.argsort(number, kind="stable")
    ordered = number[order]
    occurrence = np.empty(len(rows), np.uint64)
    occurrence[order] = np.searchsorted(ordered, ordered, side="right") - 1 - np.arange(len(rows))
    return occurrence
