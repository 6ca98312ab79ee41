"""A target that is killed or stopped: requests end, and then nothing of theirs touches memory any more."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.backend.contract import Operation, Request, Status
from trunkline.backend.plugins.ucx import UcxBackend, UcxPeer
from trunkline.errors import DeadlineError, PeerGoneError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import make_posting, segments_of
from trunkline.testing.ucx_target import UcxTarget
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only")

SIZE = 96 << 20
POISON = 99


class Scene:
    """An initiator, a target in another process, and postings of all its memory."""

    def __init__(self, target: UcxTarget, backend: UcxBackend) -> None:
        self.target, self.backend = target, backend
        self.local = np.ones(SIZE, np.uint8)
        self._slots = backend.register(MemoryKind.DRAM, segments_of(self.local))
        self.peer, self._remote_slots = target.load_into(backend)
        self.peer.connect(PATIENCE)

    def prepare(self, operation: Operation, size: int = SIZE) -> Request:
        posting = make_posting(
            operation, self.local, self._slots, np.empty(0, np.uint8), self._remote_slots, [(0, 0, size)]
        )
        posting.remote_address[:] = self.target.segment[0, 0]
        return self.backend.prepare(posting, self.peer)

    def local_stays(self, value: int) -> bool:
        """Whether the local memory keeps this value while the worker is driven on."""
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            self.backend.progress()
        return bool((self.local == value).all())


@pytest.fixture(params=["all", "tcp"])
def scene(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("UCX_TLS", request.param)
    backend = UcxBackend("initiator", devices="lo")
    with UcxTarget(SIZE, {"UCX_TLS": request.param}) as target:
        yield Scene(target, backend)
    backend.close()


def wait_for_failure(scene: Scene) -> list[UcxPeer]:
    end = time.monotonic() + PATIENCE
    failed: list[UcxPeer] = []
    while not failed and time.monotonic() < end:
        scene.backend.run(time.monotonic() + 1)
        failed = [peer for peer in scene.backend.take_failed_peers() if isinstance(peer, UcxPeer)]
    return failed


def test_the_death_of_an_idle_target_is_reported(scene: Scene) -> None:
    scene.target.send_signal(signal.SIGKILL)
    assert wait_for_failure(scene) == [scene.peer]
    assert scene.peer.failure == "Connection reset by remote peer"
    with pytest.raises(PeerGoneError):
        scene.peer.connect(PATIENCE)


@pytest.mark.parametrize("operation", list(Operation))
def test_a_target_killed_under_a_transfer_leaves_quiet_memory(scene: Scene, operation: Operation) -> None:
    request = scene.prepare(operation)
    assert request.post() == Status.IN_PROGRESS
    scene.target.send_signal(signal.SIGKILL)
    status = request.wait(time.monotonic() + PATIENCE)
    while status == Status.DONE:  # it was faster than its target's death
        request.post()
        status = request.wait(time.monotonic() + PATIENCE)
    assert status == Status.FAILED
    assert request.reason
    assert request.completed == 0
    scene.local[:] = POISON
    assert scene.local_stays(POISON)


@pytest.mark.parametrize("operation", list(Operation))
def test_abort_makes_a_transfer_to_a_stopped_target_quiet(scene: Scene, operation: Operation) -> None:
    request = scene.prepare(operation)
    scene.target.stop()
    posted = request.post()
    status = request.wait(time.monotonic() + 0.3)
    if status == Status.DONE:
        assert "cma/memory" in scene.peer.transports  # needs nobody at the other end
    else:
        assert (posted, status) == (Status.IN_PROGRESS, Status.IN_PROGRESS)
        scene.peer.abort("too slow")
        assert request.poll() == Status.FAILED
        assert request.reason == "too slow"
        assert scene.backend.take_failed_peers() == []
    scene.local[:] = POISON
    scene.target.send_signal(signal.SIGCONT)
    assert scene.local_stays(POISON)
    assert scene.target.count(POISON) == 0


def test_abort_under_a_running_transfer(scene: Scene) -> None:
    for _ in range(5):
        scene.local[:] = 1
        request = scene.prepare(Operation.WRITE)
        end = time.monotonic() + PATIENCE
        while request.post() == Status.FAILED and time.monotonic() < end:
            time.sleep(0.02)  # the pause after the abort before
        request.wait(time.monotonic() + 0.002)
        scene.peer.abort("changed my mind")
        assert request.poll() in (Status.FAILED, Status.DONE)
        scene.local[:] = POISON
        assert scene.target.count(POISON) == 0


def test_close_with_a_stopped_target_ends(scene: Scene) -> None:
    scene.target.stop()
    request = scene.prepare(Operation.WRITE)
    status = request.post()
    scene.backend.close()
    assert request.poll() == (Status.FAILED if status == Status.IN_PROGRESS else Status.DONE)
    scene.local[:] = POISON
    scene.target.send_signal(signal.SIGCONT)
    time.sleep(0.2)
    assert scene.target.count(POISON) == 0


def test_a_stopped_target_does_not_answer_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCX_TLS", "tcp")
    backend = UcxBackend("initiator", devices="lo")
    with UcxTarget(4096, {"UCX_TLS": "tcp"}) as target:
        target.stop()
        peer, _ = target.load_into(backend)
        with pytest.raises(DeadlineError, match=r"within 0\.2 s"):
            peer.connect(0.2)
        target.send_signal(signal.SIGCONT)
        peer.connect(PATIENCE)
    backend.close()


def test_a_restarted_transfer_works_after_a_failure(scene: Scene) -> None:
    request = scene.prepare(Operation.WRITE, 4096)
    assert request.post() == Status.DONE or request.wait(time.monotonic() + PATIENCE) == Status.DONE
    scene.peer.abort("once")
    end = time.monotonic() + PATIENCE
    while (status := request.post()) == Status.FAILED and time.monotonic() < end:
        time.sleep(0.02)
    assert status == Status.DONE or request.wait(end) == Status.DONE
    assert scene.target.count(1) == 4096


def test_segments_may_be_unloaded_under_a_probe_that_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCX_TLS", "tcp")
    backend = UcxBackend("initiator", devices="lo")
    with UcxTarget(4096, {"UCX_TLS": "tcp"}) as target:
        peer, slots = target.load_into(backend)
        peer.connect(PATIENCE)
        target.stop()
        with pytest.raises(DeadlineError):
            peer.connect(0.05)
        peer.unload_segments(slots)
        target.send_signal(signal.SIGCONT)
        assert finish_one(backend) == [Status.DONE]
        peer.connect(PATIENCE)
    backend.close()


def finish_one(backend: UcxBackend) -> list[Status]:
    end = time.monotonic() + PATIENCE
    finished: list[Request] = []
    while not finished and time.monotonic() < end:
        backend.run(time.monotonic() + 1)
        finished = backend.take_finished()
    return [request.poll() for request in finished]
