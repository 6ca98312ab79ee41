"""Moving bytes between an array and objects with a bare backend."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.backend.contract import Operation, Posting
from trunkline.backend.plugins.object import ObjectBackend
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import segments_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from trunkline.backend.plugins.object.request import ObjectRequest

MIB = 1 << 20


@contextmanager
def opened(**options: Any) -> Iterator[ObjectBackend]:
    backend = ObjectBackend("agent", **{"max_retries": 0, "part_size": 5 * MIB, **options})
    try:
        yield backend
    finally:
        backend.close()


def request_of(
    backend: ObjectBackend, operation: Operation, memory: NDArray[np.uint8], *keys: str, offset: int = 0
) -> ObjectRequest:
    """Return a request between an array and as many objects of equal size as there are keys."""
    size = memory.nbytes // len(keys)
    near = backend.register(MemoryKind.DRAM, segments_of(memory))
    segments = np.array([[offset, size, number] for number in range(len(keys))], np.uint64)
    far = backend.register(MemoryKind.OBJECT, segments, keys)
    posting = Posting(
        operation,
        np.arange(len(keys), dtype=np.uint64) * np.uint64(size) + np.uint64(memory.ctypes.data),
        np.full(len(keys), offset, np.uint64),
        np.full(len(keys), size, np.uint64),
        np.full(len(keys), near[0], np.int32),
        far,
        owner=memory,
    )
    return backend.prepare(posting, None)
