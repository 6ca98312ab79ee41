"""The example of a plug-in, as its users have it: run through the contract, and installed."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline.memory.kind import MemoryKind
from trunkline.testing.backend import BackendContract, Link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

EXAMPLE = Path(__file__).parents[3] / "examples" / "sqlite_backend"

PROGRAM = """
import numpy as np
from trunkline import Agent, StoredObject

with Agent("a", store="", backends=["loopback"]) as agent:
    agent.create_backend("sqlite", path={path!r})
    cache, back = np.arange(4096, dtype=np.uint8), np.zeros(4096, np.uint8)
    view, sink = agent.register(cache), agent.register(back)
    shelf = agent.register(StoredObject("block-7", 4096))
    agent.write(view, to=shelf, notify=b"stored").wait()
    agent.read(shelf, into=sink).wait()
    print((back == cache).all(), agent.take_notifications()[0].payload, [str(each) for each in agent.backends()][1])
"""


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("trunkline_sqlite", EXAMPLE / "trunkline_sqlite.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Row:
    """An object in the database, looked at past the backend."""

    kind = MemoryKind.OBJECT
    address = 0
    _numbers = itertools.count()

    def __init__(self, backend: Any, data: NDArray[np.uint8]) -> None:
        self._backend = backend
        self.nbytes = max(data.nbytes, 1)
        self.device = next(self._numbers)
        self.name = f"object-{self.device}"
        self._execute("INSERT INTO objects VALUES (?, ?)", self.name, data.tobytes())

    def read(self) -> NDArray[np.uint8]:
        data = self._execute("SELECT data FROM objects WHERE key = ?", self.name)[0][0]
        return np.frombuffer(data, np.uint8)

    def write(self, data: NDArray[np.uint8]) -> None:
        self._execute("UPDATE objects SET data = ? WHERE key = ?", data.tobytes(), self.name)

    def _execute(self, statement: str, *values: Any) -> Any:
        with self._backend.lock:
            return self._backend.database.execute(statement, values).fetchall()


class TestSqlite(BackendContract):
    @pytest.fixture
    def link(self, example: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
        backend = example.SqliteBackend("a")
        database = backend.database
        monkeypatch.setattr(backend, "close", lambda: setattr(backend, "is_closed", True))  # it is looked into after
        yield Link(backend, backend, None, lambda data: Row(backend, data))
        database.close()


def test_an_installed_one_is_found_by_its_name(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "trunkline_sqlite.py"):
        (copy / name).write_bytes((EXAMPLE / name).read_bytes())
    subprocess.run([*install, "--target", str(site), str(copy)], check=True, timeout=300)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    program = PROGRAM.format(path=str(tmp_path / "shelf.db"))
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.stdout == "True b'stored' SQLITE: open: DRAM here, OBJECT within the agent\n"
