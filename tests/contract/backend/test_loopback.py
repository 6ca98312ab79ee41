from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.backend.contract import Operation, Status
from trunkline.backend.plugins.loopback import LoopbackBackend
from trunkline.errors import MemoryRegistrationError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.backend import BackendContract, Link, bytes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class FileMemory:
    """An unnamed file as the far side."""

    kind = MemoryKind.FILE
    address = 0
    name = ""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.device, path = tempfile.mkstemp()
        Path(path).unlink()
        weakref.finalize(self, os.close, self.device)
        self.nbytes = data.nbytes
        self.write(data)

    def read(self) -> NDArray[np.uint8]:
        return np.frombuffer(os.pread(self.device, self.nbytes, 0), np.uint8)

    def write(self, data: NDArray[np.uint8]) -> None:
        os.pwrite(self.device, data.tobytes(), 0)

    def truncate(self, size: int) -> None:
        os.truncate(self.device, size)


class TestLoopback(BackendContract):
    @pytest.fixture
    def link(self) -> Iterator[Link]:
        backend = LoopbackBackend("agent")
        yield Link(backend, backend, None)
        backend.close()


class TestLoopbackToFiles(BackendContract):
    @pytest.fixture
    def link(self) -> Iterator[Link]:
        backend = LoopbackBackend("agent")
        yield Link(backend, backend, None, FileMemory)
        backend.close()

    def test_a_file_that_was_cut_short(self, link: Link) -> None:
        remote = FileMemory(bytes_of(100, 1))
        local = np.zeros(100, np.uint8)
        request = link.prepare(Operation.READ, local, remote, [(0, 0, 50), (50, 50, 50)])
        remote.truncate(70)
        assert request.post() == Status.FAILED
        assert "the file ends after 20 of 50 bytes at 50" in request.reason
        assert request.completed == 1

    def test_a_descriptor_that_is_not_open(self, link: Link) -> None:
        opened = FileMemory(bytes_of(8, 1))
        highest = os.dup(opened.device)
        os.close(highest)
        with pytest.raises(MemoryRegistrationError, match=r"segment 1 of 2 .* none was registered"):
            link.initiator.register(MemoryKind.FILE, np.array([[0, 8, opened.device], [0, 8, 2**31]], np.uint64))
        again = os.dup(opened.device)
        os.close(again)
        assert again == highest  # the first segment's duplicate was closed
