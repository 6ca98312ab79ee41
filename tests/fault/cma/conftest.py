from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.backend.contract import Operation, Posting, Request, Status
from trunkline.backend.plugins.cma import CmaBackend, CmaPeer
from trunkline.errors import ClosedError
from trunkline.testing.cma_target import CmaTarget
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.backend.contract import BackendPeer

SIZE = 96 << 20


class Scene:
    """An initiator driven by a thread of its own, and a target in another process."""

    def __init__(self, backend: CmaBackend, target: CmaTarget) -> None:
        self.backend, self.target = backend, target
        self.local = np.ones(SIZE, np.uint8)
        self.peer = target.load_into(backend)
        self.peer.connect(PATIENCE)
        self.failed: list[BackendPeer] = []
        self.has_failed = threading.Event()
        self._thread = threading.Thread(target=self._drive, name="initiator")
        self._thread.start()

    def _drive(self) -> None:
        try:
            while True:
                self.backend.run(time.monotonic() + 60)
                self.failed += self.backend.take_failed_peers()
                if self.failed:
                    self.has_failed.set()
        except ClosedError:
            pass

    def prepare(self, operation: Operation, size: int = SIZE, at: int = 0, peer: CmaPeer | None = None) -> Request:
        """Bind a posting of one row of ``size`` bytes, ``at`` bytes into the target's memory."""
        posting = Posting(
            operation,
            np.array([self.local.ctypes.data], np.uint64),
            np.array([self.target.address + at], np.uint64),
            np.array([size], np.uint64),
            np.zeros(1, np.int32),
            np.zeros(1, np.int32),
            owner=self.local,
        )
        return self.backend.prepare(posting, peer or self.peer)

    def finish(self, request: Request) -> Status:
        """Post a request and wait for its end."""
        status = request.post()
        return request.wait(time.monotonic() + PATIENCE) if status == Status.IN_PROGRESS else status

    def close(self) -> None:
        self.backend.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.fixture
def scene() -> Iterator[Scene]:
    with CmaTarget(SIZE) as target:
        made = Scene(CmaBackend("initiator"), target)
        yield made
        made.close()
