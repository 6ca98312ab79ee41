"""The POSIX backend, with workers as they are or held by the test."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.backend.posix.bench import Bench

from trunkline.backend.plugins.posix import PosixBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


class Held(threading.Thread):
    """A worker that starts only when the test says so: what is posted until then stays posted."""

    made: list[Held]

    def start(self) -> None:
        self.made.append(self)

    def release(self) -> None:
        super().start()


@pytest.fixture
def bench() -> Iterator[Bench]:
    backend = PosixBackend("agent", threads=2)
    yield Bench(backend)
    backend.close()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    Held.made = []
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Held)
        backend = PosixBackend("agent", threads=1)
    yield Bench(backend)
    backend.close()
