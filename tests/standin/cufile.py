"""Compiles cufile.c, and what tests have it do."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline.backend.plugins.gds import GdsBackend, GdsMtBackend, cuda
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import Link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SOURCE = Path(__file__).with_name("cufile.c")


@functools.cache
def _compile() -> Path:
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc): the stand-in for libcufile can't be built")
    folder = tempfile.mkdtemp(prefix="trunkline-standin-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = Path(folder, "libcufile.so.0")
    subprocess.run(
        [compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread", "-o", library, SOURCE],
        check=True,
        timeout=120,
    )
    return library


class Standin:
    """The loaded stand-in."""

    def __init__(self) -> None:
        self.path = _compile()
        self._library = ctypes.CDLL(str(self.path))
        self._library.standin_calls.restype = ctypes.c_char_p

    def reset(self) -> None:
        self._library.standin_reset()

    def fail(self, call: str, code: int, *, after: int = 0, times: int = 1) -> None:
        """Have a call fail, once it has worked ``after`` times, so many times."""
        self._library.standin_fail(call.encode(), after, code, times)

    def shorten(self, most: int) -> None:
        """Move at most so many bytes at a time."""
        self._library.standin_shorten(ctypes.c_size_t(most))

    def hold(self, on: bool = True) -> None:
        """Have all I/O wait, or let it go on."""
        self._library.standin_hold(int(on))

    @property
    def held(self) -> int:
        """How many calls wait."""
        return int(self._library.standin_held())

    def record(self) -> None:
        self._library.standin_record(1)

    @property
    def calls(self) -> list[str]:
        """The calls since ``record``, with their arguments."""
        return self._library.standin_calls().decode().splitlines()  # type: ignore[no-any-return]

    @property
    def names(self) -> list[str]:
        return [call.split()[0] for call in self.calls]

    @property
    def alive(self) -> dict[str, int]:
        """How many of each there are."""
        counts = (ctypes.c_int * 5)()
        self._library.standin_alive(counts)
        return dict(zip(("drivers", "files", "buffers", "batches", "contexts"), counts, strict=True))


@contextmanager
def standing_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    """Have backends find the stand-in in place of libcufile and of CUDA's driver; check that they leave nothing."""
    standin = Standin()
    monkeypatch.setattr(cuda, "LIBRARY", str(standin.path))
    monkeypatch.setenv("TRUNKLINE_CUFILE_LIBRARY", str(standin.path))
    standin.reset()
    yield standin
    standin.reset()
    assert not any(standin.alive.values()), standin.alive


VARIANTS: dict[str, type[GdsBackend | GdsMtBackend]] = {"GDS": GdsBackend, "GDS_MT": GdsMtBackend}


class TemporaryFile:
    """A file as the far side, known by its descriptor."""

    kind = MemoryKind.FILE
    address = 0
    name = ""

    def __init__(self, folder: Path, data: NDArray[np.uint8], flags: int = 0) -> None:
        number, text = tempfile.mkstemp(dir=folder)
        os.close(number)
        self.path = Path(text)
        self.path.write_bytes(data.tobytes())
        self.device = os.open(self.path, os.O_RDWR | flags)
        self.nbytes = data.nbytes

    def read(self) -> NDArray[np.uint8]:
        return np.fromfile(self.path, np.uint8)

    def write(self, data: NDArray[np.uint8]) -> None:
        os.pwrite(self.device, data.tobytes(), 0)

    def close(self) -> None:
        os.close(self.device)


@contextmanager
def linked(backend: GdsBackend | GdsMtBackend, folder: Path) -> Iterator[Link]:
    """A link from memory to files in a folder; the backend and the files' descriptors are closed at the end."""
    files: list[TemporaryFile] = []

    def place(data: NDArray[np.uint8]) -> Any:
        files.append(TemporaryFile(folder, data))
        return files[-1]

    try:
        yield Link(backend, backend, None, place)
    finally:
        backend.close()
        for file in files:
            file.close()
            file.path.unlink()
