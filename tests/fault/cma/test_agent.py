"""Agents over cross-memory attach: what is cancelled, passes its deadline, or loses its memory or its agent."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline import Agent, wait
from trunkline.agent.side import prepare_side, prepare_transfer
from trunkline.backend.contract import Operation
from trunkline.errors import MemoryInUseError, TransferCancelledError, TransferDeadlineError
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind
from trunkline.testing.cma_target import TargetMemory
from trunkline.testing.waiting import PATIENCE, eventually, stop_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline import TransferHandle

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cross-memory attach is Linux's")

SIZE = 256 << 20
BLOCKS = 256

TARGET = """
import sys
import numpy as np
from trunkline import Agent
memory = np.zeros(int(sys.argv[1]), np.uint8)
with Agent("target", devices="lo") as agent:
    agent.register(memory.reshape(int(sys.argv[2]), -1), name="kv")
    print(agent.card().hex(), memory.ctypes.data, flush=True)
    for line in sys.stdin:
        print(agent.wait_notification().payload.hex(), flush=True)
"""


class Scene:
    """An agent, and one in another process whose memory it writes."""

    def __init__(self, size: int = SIZE) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", TARGET, str(size), str(BLOCKS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.agent = Agent("initiator", devices="lo", grace=PATIENCE)
        self.memory = np.full((BLOCKS, size // BLOCKS), 1, np.uint8)
        self.local = self.agent.register(self.memory)
        card, address = self.read().split()
        self.card, self.theirs = bytes.fromhex(card), TargetMemory(self.process.pid, int(address), size)

    def load(self) -> Any:
        peer = self.agent.load_peer(self.card)
        peer.connect(PATIENCE)
        return peer["kv"]

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def write(self, **options: Any) -> TransferHandle:
        downwards = np.arange(BLOCKS)[::-1]  # blocks that follow one another would be one
        transfer = self.agent.write(self.local[downwards], to=self.load()[downwards], **options)
        assert transfer.telemetry.backend == "CMA"
        return transfer

    def assert_quiet(self, transfer: TransferHandle) -> None:
        """What is in the memory after the end reaches nobody."""
        assert transfer.state.has_ended
        self.memory[:] = 9
        assert not (self.theirs.read() == 9).any()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.agent.close()
    made.process.kill()
    made.process.communicate()


def test_cancelled(scene: Scene) -> None:
    transfer = scene.write()
    transfer.cancel()
    with pytest.raises(TransferCancelledError) as caught:
        transfer.wait(PATIENCE)
    scene.assert_quiet(transfer)
    assert caught.value.failed is not None
    failed = set(caught.value.failed.tolist())
    assert 0 < len(failed) < BLOCKS  # what `post` itself had copied has arrived
    arrived = [BLOCKS - 1 - number for number in range(BLOCKS) if number not in failed]
    assert (scene.theirs.read().reshape(BLOCKS, -1)[arrived] == 1).all()


def test_past_its_deadline(scene: Scene) -> None:
    transfer = scene.write(deadline=1e-3)
    with pytest.raises(TransferDeadlineError):
        transfer.wait(PATIENCE)
    scene.assert_quiet(transfer)


def test_memory_in_use_is_not_deregistered(scene: Scene) -> None:
    transfer = scene.write()
    with pytest.raises(MemoryInUseError, match="wait for it or cancel it"):
        scene.agent.deregister(scene.local, timeout=0)
    assert transfer.wait(PATIENCE).ok  # it stayed registered
    transfer.post()
    scene.agent.deregister(scene.local)
    scene.assert_quiet(transfer)


def test_its_agent_is_closed(scene: Scene) -> None:
    transfer = scene.write()
    scene.agent.close()
    scene.assert_quiet(transfer)


def test_its_notification_is_said_to_have_failed(scene: Scene) -> None:
    """The peer hears of the failure over UCX."""
    transfer = scene.write(notify=b"never")
    transfer.cancel()
    wait([transfer], PATIENCE)
    assert isinstance(transfer.error, TransferCancelledError)


def test_made_before_the_peer_has_answered(scene: Scene) -> None:
    """As through NIXL's API: one handle, posted again and again. The stopped target can't answer."""
    stop_process(scene.process)
    agent = scene.agent
    target = agent.load_peer(scene.card).target
    mine = DescriptorList.of(MemoryKind.DRAM, [(scene.memory.ctypes.data, 4096, 0)])
    theirs = DescriptorList.of(MemoryKind.DRAM, [(scene.theirs.address, 4096, 0)])
    handle = prepare_transfer(
        agent.engine,
        Operation.WRITE,
        prepare_side(agent.engine, mine),
        prepare_side(agent.engine, theirs, target),
        notify=b"done",
    )
    assert handle.backends == ("UCX",)
    assert "CMA: the peer has not answered yet" in str(agent.explain(handle))
    scene.process.send_signal(signal.SIGCONT)
    eventually(lambda: target.links["CMA"].obstacle is None)
    for value in (2, 3):
        scene.memory[:] = value
        assert handle.post().wait(PATIENCE).telemetry.backend == "CMA"
        assert scene.process.stdin is not None
        scene.process.stdin.write("\n")
        scene.process.stdin.flush()
        assert scene.read() == b"done".hex() + "\n"
        assert (scene.theirs.read()[:4096] == value).all()
