from __future__ import annotations

import errno
import fcntl
import gc
import os
from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import ConfigurationError, FileError
from trunkline.memory.buffer import buffer_of
from trunkline.memory.file import File, StoredObject
from trunkline.memory.kind import MemoryKind
from trunkline.memory.typed import typed


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def test_a_file_is_memory_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "spill"
    with File(path, "w+", size=4096) as file:
        assert path.stat().st_size == 4096
        buffer = buffer_of(file)
        assert (buffer.kind, buffer.address, buffer.nbytes, buffer.device) == (MemoryKind.FILE, 0, 4096, file.fileno())
        assert buffer.name == str(path)
        assert not buffer.readonly
        assert typed(file, "F16", (2, 1024)).shape == (2, 1024)
        number = file.fileno()
    assert is_open(number)  # the buffer needs it
    assert "closed" in repr(file)
    with pytest.raises(FileError, match="was closed"):
        buffer_of(file)
    del buffer
    assert not is_open(number)
    file.close()
    with pytest.raises(FileError, match="was closed"):
        file.fileno()


def test_modes(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 100)
    with File(path) as file:
        assert file.size == 100
        assert file.readonly
        assert buffer_of(file).readonly
    with File(path, "r+", size=150) as file:
        assert path.stat().st_size == 150
        assert path.read_bytes()[:100] == b"x" * 100
    with File(path, "r+", size=10):
        assert path.stat().st_size == 150  # never shortened
    with File(path, "w+", size=10):
        assert path.read_bytes() == bytes(10)
    with pytest.raises(FileError, match="File exists"):
        File(path, "x+", size=10)


@pytest.mark.parametrize("kind", [str, os.fsencode, Path, "an object of bytes"])
def test_paths_are_texts_bytes_or_objects_that_have_one(tmp_path: Path, kind: Any) -> None:
    class Named:
        def __fspath__(self) -> bytes:
            return path

    path = os.fsencode(tmp_path) + b"/latin-\xe9"
    given = Named() if kind == "an object of bytes" else kind(os.fsdecode(path))
    with File(given, "w+", size=8) as file:
        assert os.fsencode(file.path) == path
        assert buffer_of(file).name == os.fsdecode(path)
        assert os.path.samestat(os.stat(path), os.fstat(file.fileno()))  # noqa: PTH116  beside fstat
    with pytest.raises(FileError, match="null byte"):
        File(tmp_path / "a\0b")
    with pytest.raises(TypeError, match="PathLike"):
        File(3)  # type: ignore[arg-type]


def test_direct_files_pass_the_page_cache_or_say_that_they_can_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(os, "O_DIRECT"):
        with pytest.raises(FileError, match="no O_DIRECT"):
            File(tmp_path / "x", "w+", size=4096, direct=True)
        return
    with File(tmp_path / "x", "w+", size=4096, direct=True) as file:
        assert fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & os.O_DIRECT

    def refuse(path: Path, flags: int, mode: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FileError, match=r"Invalid argument; this file system has no direct I/O: leave out direct=True"):
        File(tmp_path / "x", direct=True)
    with pytest.raises(FileError, match=r"Invalid argument$"):
        File(tmp_path / "x")


def test_says_why_a_file_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "small").write_bytes(b"abc")
    os.mkfifo(tmp_path / "fifo")
    for name, mode, size, message in [
        ("missing", "r", None, "No such file"),
        ("empty", "r", None, "is empty"),
        ("small", "r", 4, "has 3 bytes, not 4"),
        ("fifo", "r", 4, "is not a regular file"),
        (".", "r", 4, "is not a regular file"),
        (".", "r+", 4, "Is a directory"),
        ("small", "r+", 2**63 - 1, "can't be extended"),
    ]:
        with pytest.raises(FileError, match=message):
            File(tmp_path / name, mode, size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "size"), [("a", 1), ("r", 0), ("r", -1), ("r", 2**63)])
def test_refuses_impossible_arguments(tmp_path: Path, mode: Any, size: int) -> None:
    with pytest.raises(ConfigurationError):
        File(tmp_path / "x", mode, size=size)


def test_a_dropped_file_is_closed(tmp_path: Path) -> None:
    file = File(tmp_path / "x", "w+", size=1)
    number = file.fileno()
    del file
    gc.collect()
    assert not is_open(number)


def test_objects_are_told_apart() -> None:
    one, other = StoredObject("kv/1", 10), StoredObject("kv/1", 10)
    buffer = buffer_of(one)
    assert (buffer.kind, buffer.address, buffer.nbytes, buffer.name) == (MemoryKind.OBJECT, 0, 10, "kv/1")
    assert buffer.device != buffer_of(other).device
    for key, size in [("", 1), ("k", 0)]:
        with pytest.raises(ConfigurationError):
            StoredObject(key, size)
