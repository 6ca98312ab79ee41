"""Two agents of one host move bytes by cross-memory attach, and hear of each other's end."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent
from trunkline.errors import PeerGoneError
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Pair

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cross-memory attach is Linux's")

TARGET = """
import sys
import numpy as np
from trunkline import Agent
with Agent("target", devices="lo") as agent:
    memory = np.arange(1 << 24, dtype=np.uint8)
    agent.register(memory, name="kv")
    print(agent.card().hex(), flush=True)
    sys.stdin.read()
"""
SIZES = [8, 4096, 1 << 20, 1 << 24]


def test_it_is_taken_and_the_notification_follows_the_data(pair: Pair) -> None:
    theirs, mine = np.random.default_rng(1).integers(0, 256, (16, 1 << 20), np.uint8), np.zeros((16, 1 << 20), np.uint8)
    pair.prefill.register(theirs, name="kv")
    pair.prefill.publish()
    local = pair.decode.register(mine, name="kv")
    peer = pair.decode.fetch("prefill-0")
    peer.connect()
    transfer = pair.decode.read(peer["kv"], into=local, notify=b"done").wait()
    assert transfer.telemetry.backend == "CMA"
    assert transfer.telemetry.transports == ("process_vm",)
    np.testing.assert_array_equal(mine, theirs)
    assert pair.prefill.wait_notification().payload == b"done"
    seen: list[bool] = []
    mine[:] = 7
    transfer = pair.decode.write(local, to=peer["kv"], notify=b"written")
    listener = threading.Thread(
        target=lambda: seen.append(pair.prefill.wait_notification().payload == b"written" and bool((theirs == 7).all()))
    )
    listener.start()
    transfer.wait()
    listener.join(PATIENCE)
    assert seen == [True]


def test_switched_off_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_CMA", "off")
    with Agent("alone", devices="lo") as agent:
        report = next(each for each in agent.backends() if each.name == "CMA")
        assert (report.is_open, report.reason) == (False, "TRUNKLINE_CMA=off")
        assert b"TLCM" not in agent.local_metadata()


def test_another_process_is_read_and_written_and_its_end_is_heard_of() -> None:
    process = subprocess.Popen([sys.executable, "-c", TARGET], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    with process, Agent("initiator", devices="lo") as agent:
        try:
            peer = agent.load_peer(bytes.fromhex(process.stdout.readline()))
            peer.connect(PATIENCE)
            mine = np.zeros(1 << 24, np.uint8)
            local = agent.register(mine, name="kv")
            for size in SIZES:
                transfer = agent.read(peer["kv"][:size], into=local[:size]).wait()
                assert transfer.telemetry.backend == "CMA"
                np.testing.assert_array_equal(mine[:size], np.arange(size, dtype=np.uint8))
                mine[:size] ^= 255
                agent.write(local[:size], to=peer["kv"][:size]).wait()
                agent.read(peer["kv"][:size], into=local[:size]).wait()
                np.testing.assert_array_equal(mine[:size], ~np.arange(size, dtype=np.uint8))
                mine[:size] ^= 255
                agent.write(local[:size], to=peer["kv"][:size]).wait()
            process.kill()
            reason = peer.wait_gone(PATIENCE)
            assert "unreachable" in reason
            with pytest.raises(PeerGoneError):
                agent.read(peer["kv"], into=local)
        finally:
            process.kill()
