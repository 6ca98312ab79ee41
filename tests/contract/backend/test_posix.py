from __future__ import annotations

import itertools
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline.memory.kind import MemoryKind
from trunkline.testing.backend import BackendContract, Link

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the POSIX backend is for Linux only")


class FileMemory:
    """A file as the far side; it begins where the backend finds it: in the middle."""

    kind = MemoryKind.FILE
    address = 4096

    def __init__(self, path: Path, data: NDArray[np.uint8]) -> None:
        self.nbytes = data.nbytes
        self.device = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        self.name = str(path)
        self.write(data)

    def read(self) -> NDArray[np.uint8]:
        return np.frombuffer(os.pread(self.device, self.nbytes, self.address), np.uint8)

    def write(self, data: NDArray[np.uint8]) -> None:
        view = memoryview(data.tobytes())
        at = 0
        while at < len(view):
            at += os.pwrite(self.device, view[at:], self.address + at)

    def close(self) -> None:
        os.close(self.device)


@pytest.mark.parametrize("options", [{}, {"fsync": True, "threads": 1}], ids=["plain", "fsync"])
class TestPosix(BackendContract):
    @pytest.fixture
    def link(self, tmp_path: Path, options: dict[str, Any]) -> Iterator[Link]:
        from trunkline.backend.plugins.posix import PosixBackend

        backend = PosixBackend("agent", **options)
        placed: list[FileMemory] = []
        numbers = itertools.count()  # some tests place from several threads

        def place(data: NDArray[np.uint8]) -> FileMemory:
            memory = FileMemory(tmp_path / str(next(numbers)), data)
            placed.append(memory)
            return memory

        yield Link(backend, backend, None, place)
        backend.close()
        for each in placed:
            each.close()
