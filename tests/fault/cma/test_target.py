"""A target that is killed, stopped, forks, executes, unmaps or closes: what the initiator sees of it."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.backend.contract import Operation, Posting, Status
from trunkline.backend.plugins.cma import CmaBackend
from trunkline.errors import DeadlineError, PeerGoneError
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.fault.cma.conftest import Scene

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cross-memory attach is Linux's")


def assert_gone(scene: Scene) -> None:
    """The peer is reported once, says why, and moves nothing any more."""
    assert scene.has_failed.wait(PATIENCE)
    assert scene.failed == [scene.peer]
    assert scene.peer.failure == f"process {scene.target.pid} has ended, or has closed its agent"
    assert scene.peer.obstacle == scene.peer.failure
    assert not scene.peer.transports
    with pytest.raises(PeerGoneError, match=f"'target' is gone: process {scene.target.pid}"):
        scene.peer.connect(PATIENCE)
    request = scene.prepare(Operation.WRITE, 8)
    assert request.post() == Status.FAILED
    assert request.reason == scene.peer.failure


@pytest.mark.parametrize("operation", list(Operation))
def test_killed_under_a_transfer(scene: Scene, operation: Operation) -> None:
    request = scene.prepare(operation)
    assert request.post() == Status.IN_PROGRESS
    scene.target.kill()
    status = request.wait(time.monotonic() + PATIENCE)
    while status == Status.DONE:  # it was faster than its target's death
        status = scene.finish(request)
    assert status == Status.FAILED
    assert request.completed == 0
    assert f"process {scene.target.pid} has ended" in request.reason
    scene.local[:] = 99
    assert_gone(scene)
    assert (scene.local == 99).all()


def test_killed_while_idle(scene: Scene) -> None:
    scene.target.kill()
    assert_gone(scene)


@pytest.mark.parametrize("how", ["fork", "clone"])
def test_killed_with_a_child_that_lives_on(scene: Scene, how: str) -> None:
    child = scene.target.ask(how)
    assert scene.finish(scene.prepare(Operation.WRITE)) == Status.DONE  # forking alone changes nothing
    scene.target.kill()
    assert child != scene.target.pid
    assert_gone(scene)


@pytest.mark.parametrize("how", ["exec", "close"])
def test_gone_though_its_process_lives(scene: Scene, how: str) -> None:
    scene.target.ask(how)
    assert_gone(scene)


def test_a_stopped_one_is_read_and_written(scene: Scene) -> None:
    scene.target.stop()
    assert scene.finish(scene.prepare(Operation.WRITE)) == Status.DONE
    scene.local[:] = 0
    assert scene.finish(scene.prepare(Operation.READ)) == Status.DONE
    assert scene.local.all()
    scene.target.resume()
    assert scene.target.ask("count 1") == len(scene.local)


def test_one_stopped_before_it_answered_is_waited_for(scene: Scene) -> None:
    scene.target.stop()
    late = scene.target.load_into(scene.backend)
    assert late.obstacle == "the peer has not answered yet"
    with pytest.raises(DeadlineError, match=f"process {scene.target.pid}"):
        late.connect(0.05)
    request = scene.prepare(Operation.WRITE, 8, peer=late)
    assert request.post() == Status.FAILED
    assert request.reason == "the peer has not answered yet"
    scene.target.resume()
    late.connect(PATIENCE)
    assert not late.obstacle
    assert request.post() == Status.DONE


@pytest.mark.parametrize("operation", list(Operation))
def test_unmapped_memory_fails_with_its_row(scene: Scene, operation: Operation) -> None:
    scene.target.ask("unmap")
    request = scene.prepare(operation, 1 << 16)
    assert request.post() == Status.FAILED
    call = "process_vm_readv" if operation is Operation.READ else "process_vm_writev"
    assert request.reason.startswith(
        f"{call}: row 0 (65536 bytes at {scene.target.address:#x} of process {scene.target.pid}): EFAULT (Bad address)"
    )
    assert request.completed == 0
    assert scene.peer.obstacle is None  # it lives
    assert scene.failed == []


def test_a_row_that_fails_leaves_those_before_it(scene: Scene) -> None:
    size, rows = 4096, 3000
    offset = np.arange(rows, dtype=np.uint64) * np.uint64(size)
    remote = offset + np.uint64(scene.target.address)
    remote[2000] = 4096  # a page that is never mapped
    posting = Posting(
        Operation.READ,
        offset + np.uint64(scene.local.ctypes.data),
        remote,
        np.full(rows, size, np.uint64),
        np.zeros(rows, np.int32),
        np.zeros(rows, np.int32),
    )
    request = scene.backend.prepare(posting, scene.peer)
    assert scene.finish(request) == Status.FAILED
    assert "row 2000 (4096 bytes at 0x1000" in request.reason
    assert 1000 < request.completed <= 2000
    assert not scene.local[: request.completed * size].any()


@pytest.mark.parametrize("how", ["stop", "abort"])
def test_stop_and_abort_leave_quiet_memory(scene: Scene, how: str) -> None:
    request = scene.prepare(Operation.READ)
    assert request.post() == Status.IN_PROGRESS
    if how == "stop":
        request.stop()
    else:
        scene.peer.abort("enough")
    assert request.wait(time.monotonic() + PATIENCE) == (Status.STOPPED if how == "stop" else Status.FAILED)
    assert request.reason == ("" if how == "stop" else "enough")
    scene.local[:] = 99
    assert scene.peer.obstacle is None
    assert scene.finish(scene.prepare(Operation.READ, 8)) == Status.DONE
    assert (scene.local[8:] == 99).all()


def test_more_connections_than_it_serves_use_another_way(scene: Scene) -> None:
    few = CmaBackend("few", connections=1)
    first, second = (scene.backend.load_peer("few", few.connection_info()) for _ in range(2))
    end = time.monotonic() + PATIENCE
    while "hung up" not in (second.obstacle or "") and time.monotonic() < end:
        few.progress()
    assert first.obstacle is None
    assert (second.obstacle or "").endswith("it serves as many others as it may, or has ended")
    second.connect(PATIENCE)  # no error: the peer lives
    first.close()
    while few.connections and time.monotonic() < end:
        few.progress()
    second._retry_at = 0.0  # what the passing of time comes to
    while second.obstacle is not None and time.monotonic() < end:
        few.progress()
    assert second.obstacle is None
    few.close()


def test_out_of_descriptors_both_sides_say_so_and_recover(scene: Scene) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    other = CmaBackend("other")
    late = scene.backend.load_peer("other", other.connection_info())
    held: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[0]), limits[1]))
        while len(held) < 256:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        refused = scene.backend.load_peer("other", other.connection_info())
        assert refused.obstacle == "the peer could not be connected to: Too many open files (EMFILE)"
        other.progress()  # can't accept
        assert late.obstacle == "the peer has not answered yet"
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    end = time.monotonic() + PATIENCE
    while (late.obstacle or refused.obstacle) and time.monotonic() < end:
        other.run(time.monotonic() + 0.05)
    assert not late.obstacle
    assert not refused.obstacle
    other.close()
