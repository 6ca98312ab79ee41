"""Requests of the POSIX backend in one line."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.backend.contract import Operation, Posting
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import finish, segments_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.backend.contract import Slots
    from trunkline.backend.plugins.posix import PosixBackend
    from trunkline.backend.plugins.posix.request import PosixRequest
    from trunkline.testing.link import Rows

_numbers = itertools.count(1 << 32)


def file_posting(operation: Operation, memory: NDArray[Any], near: Slots, far: Slots, rows: Rows) -> Posting:
    """Return a posting of (memory offset, file offset, length) rows; ``far`` has a slot for each, or one."""
    table = np.array(rows, np.uint64).reshape(-1, 3)
    return Posting(
        operation,
        table[:, 0] + np.uint64(memory.ctypes.data),
        table[:, 1].copy(),
        table[:, 2].copy(),
        np.full(len(rows), near[0], np.int32),
        np.resize(far, len(rows)),
        owner=memory,
    )


class Bench:
    """Registers both sides and prepares.

    Attributes:
        near: The slot of the memory of the last request.
        far: The slot of its file.
    """

    near: Slots
    far: Slots

    def __init__(self, backend: PosixBackend) -> None:
        self.backend = backend

    def prepare(
        self,
        operation: Operation,
        memory: NDArray[Any],
        name: str,
        rows: Rows,
        *,
        device: int | None = None,
        size: int = 1 << 30,
    ) -> PosixRequest:
        device = next(_numbers) if device is None else device
        self.near = self.backend.register(MemoryKind.DRAM, segments_of(memory))
        self.far = self.backend.register(MemoryKind.FILE, np.array([[0, size, device]], np.uint64), [name])
        return self.backend.prepare(file_posting(operation, memory, self.near, self.far, rows), None)

    def run(self, operation: Operation, memory: NDArray[Any], name: str, rows: Rows) -> PosixRequest:
        request = self.prepare(operation, memory, name, rows)
        finish(request, request.post())
        return request
