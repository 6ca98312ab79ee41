from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from trunkline.backend.plugins.ucx import UcxBackend
from trunkline.testing.backend import BackendContract, Link
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only")


@pytest.mark.parametrize("link", ["all", "tcp"], indirect=True)
class TestUcx(BackendContract):
    """Two workers in one process; the target is driven by a thread of its own."""

    @pytest.fixture
    def link(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
        monkeypatch.setenv("UCX_TLS", request.param)
        initiator, target = UcxBackend("initiator", devices="lo"), UcxBackend("target", devices=["lo"])
        ended = threading.Event()

        def drive() -> None:
            while not ended.is_set():
                target.run(time.monotonic() + 1)
                time.sleep(0.001)  # what there is to take is the test's to take

        thread = threading.Thread(target=drive, name="target")
        thread.start()
        peer = initiator.load_peer("target", target.connection_info())
        yield Link(initiator, target, peer)
        ended.set()
        target.wake()
        thread.join(PATIENCE)
        peer.close()
        initiator.close()
        target.close()
