from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from trunkline.backend.plugins.cma import CmaBackend
from trunkline.testing.backend import BackendContract, Link
from trunkline.testing.cma_target import CmaTarget
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cross-memory attach is Linux's")


class TestCma(BackendContract):
    """Two backends in one process; the target is driven by a thread of its own."""

    @pytest.fixture
    def link(self) -> Iterator[Link]:
        initiator, target = CmaBackend("initiator"), CmaBackend("target")
        ended = threading.Event()

        def drive() -> None:
            while not ended.is_set():
                target.run(time.monotonic() + 60)

        thread = threading.Thread(target=drive, name="target")
        thread.start()
        peer = initiator.load_peer("target", target.connection_info())
        peer.connect(PATIENCE)
        yield Link(initiator, target, peer)
        ended.set()
        target.wake()
        thread.join(PATIENCE)
        peer.close()
        initiator.close()
        target.close()


class TestOtherProcess(BackendContract):
    """The target's memory is another process's."""

    @pytest.fixture
    def link(self) -> Iterator[Link]:
        initiator = CmaBackend("initiator")
        with CmaTarget(4096) as target:
            peer = target.load_into(initiator)
            peer.connect(PATIENCE)
            # Nothing is registered at a target, so any backend stands in for the one over there.
            yield Link(initiator, initiator, peer, target.place)
            peer.close()
            initiator.close()
