from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if sys.platform != "linux":
    pytest.skip("the POSIX backend is for Linux only", allow_module_level=True)

from trunkline.backend.plugins.posix import PosixBackend
from trunkline.backend.plugins.posix.file import OpenFile
from trunkline.errors import ClosedError, MemoryRegistrationError
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def backend() -> Iterator[PosixBackend]:
    made = PosixBackend("agent")
    yield made
    made.close()


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def register(backend: PosixBackend, device: int, name: str = "") -> None:
    backend.register(MemoryKind.FILE, np.array([[0, 4096, device]], np.uint64), (name,) if name else ())


def test_what_has_no_offsets_is_refused_by_its_kind(backend: PosixBackend, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    ends = socket.socketpair()
    opened = {
        "a directory": os.open(tmp_path, os.O_RDONLY),
        "a FIFO": os.open(tmp_path / "fifo", os.O_RDWR),
        "a socket": ends[0].fileno(),
        "a character device": os.open("/dev/full", os.O_RDWR),
    }
    for kind, device in opened.items():
        with pytest.raises(MemoryRegistrationError, match=f"it is {kind}.*none was registered"):
            register(backend, device, "/some/name")
    for path in (tmp_path / "fifo", "/dev/full"):
        with pytest.raises(MemoryRegistrationError, match="only regular files"):
            register(backend, 0, f"rw:{path}")
    with pytest.raises(MemoryRegistrationError, match="EISDIR"):
        register(backend, 0, f"rw:{tmp_path}")
    for kind, device in opened.items():
        if kind != "a socket":
            os.close(device)
    for end in ends:
        end.close()


def test_descriptors_that_ignore_offsets_or_are_closed_are_refused(backend: PosixBackend, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    for flags, why in ((os.O_APPEND | os.O_RDWR, "O_APPEND"), (os.O_PATH, "O_PATH")):
        device = os.open(path, flags)
        with pytest.raises(MemoryRegistrationError, match=why):
            register(backend, device)
        os.close(device)
    for device in (9999, 1 << 40, (1 << 64) - 1):
        with pytest.raises(MemoryRegistrationError, match=f"descriptor {device} can't be duplicated"):
            register(backend, device)


def test_a_path_that_can_not_be_opened_says_why(backend: PosixBackend, tmp_path: Path) -> None:
    with pytest.raises(MemoryRegistrationError, match=r"missing' can't be registered.*'rw'.*ENOENT"):
        register(backend, 0, f"rw:{tmp_path / 'missing'}")
    with pytest.raises(MemoryRegistrationError, match="null byte"):
        register(backend, 0, "rw:/a\0b")


def test_all_segments_are_registered_or_none(backend: PosixBackend, tmp_path: Path) -> None:
    before = descriptors()
    segments = np.array([[0, 8, 0], [0, 8, 0]], np.uint64)
    with pytest.raises(MemoryRegistrationError, match="ENOENT"):
        backend.register(MemoryKind.FILE, segments, [f"rw,create:{tmp_path / 'a'}", f"rw:{tmp_path / 'b'}"])
    assert descriptors() == before
    for bad in ([0, 0, 0], [1 << 63, 8, 0], [(1 << 64) - 4, 8, 0]):
        with pytest.raises(MemoryRegistrationError, match="not a range of a file; none"):
            backend.register(MemoryKind.FILE, np.array([bad], np.uint64), [f"rw:{tmp_path / 'a'}"])
    assert descriptors() == before


def test_a_file_is_opened_once_whatever_number_of_segments_it_has(backend: PosixBackend, tmp_path: Path) -> None:
    before = len(descriptors())
    device = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    direct = os.open(tmp_path / "file", os.O_RDWR | os.O_DIRECT)
    segments = np.array([[8 * row, 8, device] for row in range(3000)], np.uint64)
    slots = [backend.register(MemoryKind.FILE, segments[:2000])]
    slots.append(backend.register(MemoryKind.FILE, segments[2000:], [str(tmp_path / "file")] * 1000))
    slots.append(backend.register(MemoryKind.FILE, segments[:1], [f"rw:{tmp_path / 'file'}"]))
    assert len(descriptors()) == before + 3
    slots.append(backend.register(MemoryKind.FILE, np.array([[0, 8, direct]], np.uint64)))
    assert len(descriptors()) == before + 4
    os.close(device)
    os.close(direct)
    for each in slots:
        backend.deregister(each)
    assert len(descriptors()) == before


def test_a_device_number_stands_for_one_file_at_a_time(backend: PosixBackend, tmp_path: Path) -> None:
    """Transfers find a file's segments by it: of two, one would be written in place of the other."""
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(bytes(8))
    number = os.open(tmp_path / "one", os.O_RDWR)
    segments = np.array([[0, 8, number]], np.uint64)
    slots = [backend.register(MemoryKind.FILE, segments)]
    before = len(descriptors())
    os.close(number)
    assert os.open(tmp_path / "two", os.O_RDWR) == number
    for names in ((), (f"rw:{tmp_path / 'two'}",), (f"ro:{tmp_path / 'one'}",)):
        with pytest.raises(
            MemoryRegistrationError, match=rf"device {number} stands for another.*; none was registered"
        ):
            backend.register(MemoryKind.FILE, segments, names)
    with pytest.raises(MemoryRegistrationError, match=r"two' can't be registered: device 5 stands for another file"):
        backend.register(
            MemoryKind.FILE, np.array([[0, 8, 5]] * 2, np.uint64), [f"rw:{tmp_path / name}" for name in ("one", "two")]
        )
    assert len(descriptors()) == before
    slots.append(backend.register(MemoryKind.FILE, segments, [f"rw:{tmp_path / 'one'}"]))  # the same file
    for each in slots:
        backend.deregister(each)
    backend.register(MemoryKind.FILE, segments)
    os.close(number)


def test_registered_while_it_is_closed_nothing_stays_open(
    backend: PosixBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()
    open_file = OpenFile.__init__

    def open_and_close(file: OpenFile, *arguments: Any) -> None:
        open_file(file, *arguments)
        backend.close()

    monkeypatch.setattr(OpenFile, "__init__", open_and_close)
    with pytest.raises(ClosedError):
        register(backend, 0, f"rw,create:{tmp_path / 'file'}")
    assert descriptors() == before
