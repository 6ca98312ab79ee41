from __future__ import annotations

import os
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.backend.contract import Operation, Status
from trunkline.backend.plugins.loopback import LoopbackBackend
from trunkline.errors import MemoryRegistrationError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.backend import BackendContract
from trunkline.testing.link import Link, bytes_of, make_posting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class FileMemory:
    """An unnamed file as the far side."""

    address = 0
    name = ""

    def __init__(self, data: NDArray[np.uint8], kind: MemoryKind = MemoryKind.FILE) -> None:
        self.kind = kind
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


class ObjectMemory:
    """An object of a loopback backend as the far side; its segment begins somewhere within it."""

    kind = MemoryKind.OBJECT
    address = 5
    device = 0

    def __init__(self, backend: LoopbackBackend, data: NDArray[np.uint8]) -> None:
        self._objects = backend.objects
        self.name = f"object {len(self._objects)}"
        self.nbytes = data.nbytes
        self._objects[self.name] = bytearray(self.address + self.nbytes)
        self.write(data)

    def read(self) -> NDArray[np.uint8]:
        return np.frombuffer(bytes(self._objects[self.name][self.address :]), np.uint8)

    def write(self, data: NDArray[np.uint8]) -> None:
        self._objects[self.name][self.address :] = data.tobytes()


class TestLoopbackToObjects(BackendContract):
    @pytest.fixture
    def link(self) -> Iterator[Link]:
        backend = LoopbackBackend("agent")
        yield Link(backend, backend, None, lambda data: ObjectMemory(backend, data))
        backend.close()

    def test_an_object_is_made_by_what_is_written(self, link: Link) -> None:
        backend = link.initiator
        assert isinstance(backend, LoopbackBackend)
        memory, back = bytes_of(8, 1), np.zeros(8, np.uint8)
        far = backend.register(MemoryKind.OBJECT, np.array([[0, 100, 7]], np.uint64), ["new"])
        reading, writing = (
            backend.prepare(
                replace(
                    make_posting(operation, local, link.register(local), local, far, [(0, 0, 8)]),
                    remote_address=np.array([90], np.uint64),
                ),
                None,
            )
            for operation, local in ((Operation.READ, back), (Operation.WRITE, memory))
        )
        assert reading.post() == Status.FAILED
        assert "the object ends after 0 of 8 bytes at 90" in reading.reason
        assert writing.post() == Status.DONE
        assert backend.objects["new"] == bytes(90) + memory.tobytes()
        assert reading.post() == Status.DONE
        np.testing.assert_array_equal(back, memory)
        backend.deregister(far)
        assert bytes(backend.objects["new"][90:]) == memory.tobytes()

    @pytest.mark.parametrize("keys", [(), ("one",), ("one", "")])
    def test_an_object_has_a_key(self, link: Link, keys: tuple[str, ...]) -> None:
        with pytest.raises(MemoryRegistrationError, match=r"segment [01] of 2 .* has no key"):
            link.initiator.register(MemoryKind.OBJECT, np.array([[0, 8, 1], [0, 8, 2]], np.uint64), keys)


class TestLoopbackToBlockDevices(BackendContract):
    """A file stands in for the device."""

    @pytest.fixture
    def link(self) -> Iterator[Link]:
        backend = LoopbackBackend("agent")
        yield Link(backend, backend, None, lambda data: FileMemory(data, MemoryKind.BLOCK))
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
