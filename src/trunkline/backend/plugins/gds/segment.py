"""Registered segments: what cuFile holds for them, and a table that plans look slots up in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from trunkline.backend.file import OwnDescriptor
from trunkline.backend.plugins.gds.cuda import NO_DEVICE
from trunkline.backend.plugins.gds.cufile import (
    INVALID_MAPPING_SIZE,
    MEMORY_ALREADY_REGISTERED,
    PINNING_FAILED,
    CuFileError,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.backend.contract import Slots
    from trunkline.backend.plugins.gds.library import Library

_UNPINNED = (INVALID_MAPPING_SIZE, MEMORY_ALREADY_REGISTERED, PINNING_FAILED)
"""Refusals after which cuFile still moves the memory, through buffers of its own or another's registration."""


class RegisteredFile:
    """An open file with cuFile's handle on it, and a descriptor of its own; made with one holder.

    Args:
        library: The open library.
        device: An open descriptor; it is duplicated.
        name: The file's path, for messages; or a path and how to open it, and then ``device`` is not looked at.

    Raises:
        FileError: It can't be opened, or is no file.
        CuFileError: cuFile refused it.
    """

    def __init__(self, library: Library, device: int, name: str) -> None:
        own = OwnDescriptor(device, name)
        self.name, self.identity = own.label, own.identity
        self.holders = 1
        self._library = library
        self._descriptor = own.number
        try:
            self.handle = library.cufile.register_file(self._descriptor)
        except BaseException:
            os.close(self._descriptor)
            raise

    def end(self) -> None:
        """Give handle and descriptor back."""
        self._library.cufile.deregister_file(self.handle)
        os.close(self._descriptor)


class RegisteredBuffer:
    """Memory that cuFile has pinned, where it could; made with one holder.

    Raises:
        CuFileError: cuFile refused it.
        BackendError: CUDA refused its device.
    """

    def __init__(self, library: Library, address: int, length: int, device: int) -> None:
        self.name = f"memory at {address:#x}"
        self.holders = 1
        self._library = library
        self._address = address
        self._device = device
        self._is_pinned = True
        with library.cuda.current(device):
            try:
                library.cufile.register_buffer(address, length)
            except CuFileError as error:
                if error.code not in _UNPINNED:
                    raise
                self._is_pinned = False

    def end(self) -> None:
        """Unpin it."""
        if self._is_pinned:
            with self._library.cuda.current(self._device):
                self._library.cufile.deregister_buffer(self._address)


Resource = RegisteredFile | RegisteredBuffer


class SegmentTable:
    """Segments by slot. Slots are used again, each time in another generation; their caller holds a lock."""

    def __init__(self) -> None:
        self.start = np.zeros(0, np.uint64)
        self.end = np.zeros(0, np.uint64)
        self.generation = np.zeros(0, np.int64)
        """Odd while the slot is taken."""
        self.device = np.zeros(0, np.int64)
        self.handle = np.zeros(0, np.uint64)
        """cuFile's, for files; 0 for memory."""
        self.resources: list[Resource | None] = []
        self._free: list[int] = []

    def add(self, segments: NDArray[np.uint64], devices: NDArray[np.int64], resources: list[Resource]) -> Slots:
        """Take a slot for each segment."""
        lacking = len(segments) - len(self._free)
        if lacking > 0:
            grown = max(lacking, len(self.resources), 16)
            self._free += range(len(self.resources) + grown - 1, len(self.resources) - 1, -1)
            self.resources += [None] * grown
            for name in ("start", "end", "generation", "device", "handle"):
                column = getattr(self, name)
                setattr(self, name, np.concatenate([column, np.zeros(grown, column.dtype)]))
        taken = [self._free.pop() for _ in range(len(segments))]
        slots = np.array(taken, np.int32)
        self.start[slots], self.end[slots] = segments[:, 0], segments[:, 0] + segments[:, 1]
        self.device[slots] = devices
        self.generation[slots] += 1
        for slot, resource in zip(taken, resources, strict=True):
            self.handle[slot] = resource.handle if isinstance(resource, RegisteredFile) else 0
            self.resources[slot] = resource
        return slots

    def remove(self, slots: Slots) -> list[Resource]:
        """Free the slots that are taken and return what they held."""
        removed: list[Resource] = []
        for slot in slots.tolist():
            resource = self.resources[slot] if 0 <= slot < len(self.resources) else None
            if resource is not None:
                removed.append(resource)
                self.resources[slot] = None
                self.generation[slot] += 1
                self._free.append(slot)
        return removed

    def taken(self) -> Slots:
        """Return the slots that are taken."""
        return np.flatnonzero(self.generation & 1).astype(np.int32)

    def outside(self, slots: Slots, address: NDArray[np.uint64], length: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Say of each range whether it leaves the segment of its slot, or the slot is free."""
        known = (slots >= 0) & (slots < len(self.start))
        at = np.where(known, slots, 0)
        if not len(self.start):
            return np.ones(len(slots), np.bool_)
        end = address + length
        inside = (self.start[at] <= address) & (address <= end) & (end <= self.end[at])
        is_taken = self.generation[at] % 2 == 1
        outside: NDArray[np.bool_] = ~(known & inside & is_taken)
        return outside


def devices_of(is_memory_of_gpu: bool, segments: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the GPU of each segment, or NO_DEVICE."""
    return segments[:, 2].astype(np.int64) if is_memory_of_gpu else np.full(len(segments), NO_DEVICE, np.int64)
