from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.backend.contract import ConnectionInfo, Operation, Posting, Status
from trunkline.backend.plugins.cma import CmaBackend
from trunkline.errors import BackendError, ClosedError, ForkedError, MetadataDecodeError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.cma_target import CmaTarget
from trunkline.testing.link import make_posting, segments_of
from trunkline.testing.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cross-memory attach is Linux's")


@pytest.fixture
def backend() -> Iterator[CmaBackend]:
    made = CmaBackend("agent")
    yield made
    made.close()


@pytest.fixture
def other() -> Iterator[CmaBackend]:
    """A target, driven by a thread of its own."""
    made = CmaBackend("other")
    ended = threading.Event()

    def drive() -> None:
        while not ended.is_set():
            made.run(time.monotonic() + 60)

    thread = threading.Thread(target=drive, name="other")
    thread.start()
    yield made
    ended.set()
    made.wake()
    thread.join(PATIENCE)
    made.close()


def seconds_on_a_processor(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int(task.joinpath("schedstat").read_text().split()[0]) for task in tasks) / 1e9


def test_a_socket_that_is_not_here_is_an_obstacle_that_says_so(backend: CmaBackend) -> None:
    peer = backend.load_peer("decode-0", ConnectionInfo(b"TLCM\x01" + bytes(16)))
    assert (
        peer.obstacle
        == "the peer is on another host or in another network namespace, or has ended: no such socket here"
    )
    peer.connect(PATIENCE)  # which says nothing about its life
    assert peer.failure is None
    assert "another host" in repr(peer)
    with pytest.raises(MetadataDecodeError, match="'decode-0'"):
        backend.load_peer("decode-0", ConnectionInfo(b"garbage"))
    later = backend.load_peer("decode-0", ConnectionInfo(b"TLCM\x07later"))
    assert "version 7" in (later.obstacle or "")


def test_metadata_that_names_the_socket_of_another_agent_is_an_obstacle(backend: CmaBackend, other: CmaBackend) -> None:
    peer = backend.load_peer("decode-0", other.connection_info())
    peer.connect(PATIENCE)
    assert peer.obstacle == f"process {os.getpid()} is agent 'other', whose socket the peer's metadata names"


def test_other_kinds_and_its_own_agent_are_refused(backend: CmaBackend, other: CmaBackend) -> None:
    memory = np.zeros(8, np.uint8)
    peer = backend.load_peer("other", other.connection_info())
    keys = other.remote_keys(other.register(MemoryKind.DRAM, segments_of(memory)))
    assert (len(keys), keys.data) == (1, b"")
    with pytest.raises(BackendError, match="VRAM"):
        peer.load_segments(MemoryKind.VRAM, segments_of(memory), keys)
    slots = peer.load_segments(MemoryKind.DRAM, segments_of(memory), keys)
    posting = make_posting(Operation.READ, memory, slots, memory, slots, [(0, 0, 8)])
    with pytest.raises(BackendError, match="loopback"):
        backend.prepare(posting, None)
    peer.connect(PATIENCE)
    with pytest.raises(BackendError, match="carries no notifications"):
        backend.prepare(posting, peer).post(b"note")


@pytest.mark.parametrize("operation", list(Operation))
def test_what_many_threads_copy_side_by_side_is_exact(
    backend: CmaBackend, other: CmaBackend, operation: Operation
) -> None:
    """The posting thread, `run` and three that wait; large rows, small ones, and some of no bytes, in random order."""
    random = np.random.default_rng(5)
    length = np.repeat(np.array([64, 4097, 0, 3_000_001], np.uint64), [9000, 900, 50, 9])
    random.shuffle(length)
    order = random.permutation(len(length))
    near, far = np.empty_like(length), np.empty_like(length)
    near[:] = np.cumsum(length) - length
    far[order] = np.cumsum(length[order]) - length[order]
    mine, its = (random.integers(0, 256, int(length.sum()), np.uint8) for _ in range(2))
    expected_mine, expected_its = mine.copy(), its.copy()
    for here, there, size in zip(near.tolist(), far.tolist(), length.tolist(), strict=True):
        if operation is Operation.READ:
            expected_mine[here : here + size] = its[there : there + size]
        else:
            expected_its[there : there + size] = mine[here : here + size]
    peer = backend.load_peer("other", other.connection_info())
    peer.connect(PATIENCE)
    slots = np.zeros(len(length), np.int32)
    request = backend.prepare(
        Posting(
            operation,
            (near + mine.ctypes.data).astype(np.uint64),
            (far + its.ctypes.data).astype(np.uint64),
            length.astype(np.uint64),
            slots,
            slots,
        ),
        peer,
    )
    runner = threading.Thread(target=backend.run, args=(time.monotonic() + PATIENCE,), name="run")
    runner.start()
    ends = [request.post()]
    waiters = [
        threading.Thread(target=lambda: ends.append(request.wait(time.monotonic() + PATIENCE))) for _ in range(3)
    ]
    for waiter in waiters:
        waiter.start()
    for waiter in waiters:
        waiter.join(PATIENCE)
    backend.wake()
    runner.join(PATIENCE)
    assert ends[1:] == [Status.DONE] * 3, request.reason
    assert request.completed == len(length)
    np.testing.assert_array_equal(mine, expected_mine)
    np.testing.assert_array_equal(its, expected_its)


def test_a_closed_backend_refuses_everything(other: CmaBackend) -> None:
    backend = CmaBackend("agent")
    peer = backend.load_peer("other", other.connection_info())
    peer.connect(PATIENCE)
    assert other.connections == 1
    runner = threading.Thread(target=backend.run, args=(time.monotonic() + 10 * PATIENCE,), name="run")
    runner.start()
    backend.close()
    runner.join(PATIENCE)
    assert not runner.is_alive()
    for refused in (backend.connection_info, backend.progress, backend.wake, backend.take_finished):
        with pytest.raises(ClosedError, match="'agent'"):
            refused()
    assert peer.obstacle == "the backend was closed"
    peer.close()
    backend.close()
    assert "closed" in repr(backend)
    eventually(lambda: not other.connections)


def test_a_backend_is_closed_before_a_peer_whose_end_nobody_took(backend: CmaBackend) -> None:
    with CmaTarget(4096) as target:
        peer = target.load_into(backend)
        peer.connect(PATIENCE)
        target.kill()
        assert "has ended" in (peer.obstacle or "")
    backend.close()
    peer.close()
    assert peer.obstacle == "the peer was closed"


def test_a_peer_that_is_waited_for_can_be_asked_and_closed_meanwhile(backend: CmaBackend) -> None:
    """Nobody drives the target, so it never answers."""
    silent = CmaBackend("silent")
    peer = backend.load_peer("silent", silent.connection_info())
    link, waits = peer.link, 0

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(link, name)

        def wait(self, seconds: float) -> None:
            nonlocal waits
            waits += 1
            assert peer.obstacle == "the peer has not answered yet"
            link.wait(seconds)
            if waits == 2:
                peer.close()

    peer.link = Watched()  # type: ignore[assignment]
    peer.connect(PATIENCE)
    assert waits == 2
    assert peer.obstacle == "the peer was closed"
    silent.close()


def test_connections_below_none_are_none(other: CmaBackend) -> None:
    few = CmaBackend("few", connections=-1)
    peer = other.load_peer("few", few.connection_info())
    few.progress()
    assert few.connections == 0
    assert "hung up" in (peer.obstacle or "")
    few.close()


def test_a_connection_that_a_cloned_child_has_too_is_forgotten(backend: CmaBackend) -> None:
    """The child's copy keeps what its parent closes in the set of what that waits for: it would never sleep again."""
    with CmaTarget(4096) as target:
        peer = target.load_into(backend)
        peer.connect(PATIENCE)
        target.ask("clone")
        peer.close()
        before = seconds_on_a_processor(target.pid)
        backend.run(time.monotonic() + 0.5)
        assert seconds_on_a_processor(target.pid) - before < 0.1


def test_a_closed_peer_is_not_used(backend: CmaBackend, other: CmaBackend) -> None:
    memory = np.zeros(8, np.uint8)
    peer = backend.load_peer("other", other.connection_info())
    peer.connect(PATIENCE)
    slots = np.zeros(1, np.int32)
    request = backend.prepare(make_posting(Operation.READ, memory, slots, memory, slots, [(0, 0, 8)]), peer)
    assert request.post() == Status.DONE
    peer.close()
    peer.close()
    assert request.post() == Status.FAILED
    assert request.reason == peer.obstacle == "the peer was closed"


def test_a_forked_child_is_told_and_closes_nothing(backend: CmaBackend, other: CmaBackend) -> None:
    memory, target = np.ones(8, np.uint8), np.zeros(8, np.uint8)
    peer = backend.load_peer("other", other.connection_info())
    peer.connect(PATIENCE)
    slots = np.zeros(1, np.int32)
    request = backend.prepare(make_posting(Operation.WRITE, memory, slots, target, slots, [(0, 0, 8)]), peer)
    code = os.fork()
    if code == 0:
        try:
            for refused in (backend.progress, request.post, other.connection_info):
                with pytest.raises(ForkedError):
                    refused()
            backend.close()
            peer.close()
            again, target_again = CmaBackend("again"), CmaBackend("child")
            pair = again.load_peer("child", target_again.connection_info())
            while pair.obstacle is not None:
                target_again.progress()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(code, 0)[1]) == 0
    assert peer.obstacle is None
    assert request.post() == Status.DONE
    assert target.all()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("side", ["initiator", "target"])
def test_another_user_is_refused_by_both_sides(backend: CmaBackend, other: CmaBackend, side: str) -> None:
    """The initiator sees whose socket it is; a target hangs up on an initiator that does not look."""
    info = backend.connection_info() if side == "initiator" else other.connection_info()
    code = f"""
import os, socket
from trunkline.backend.contract import ConnectionInfo
from trunkline.backend.plugins.cma import CmaBackend
CmaBackend("root").close()  # loads all that another user might not be allowed to read
os.setresuid(12345, 12345, 12345)
if {side == "initiator"}:
    peer = CmaBackend("initiator").load_peer("agent", ConnectionInfo({info!r}))
    assert peer.obstacle == "the peer belongs to another user (uid 0; we are 12345)", peer.obstacle
    peer.connect(1)
else:
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stranger.connect(b"\\0trunkline-cma-" + {info[5:].hex().encode()!r})
    stranger.settimeout({PATIENCE})
    assert stranger.recv(512) == b""
"""
    subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=120,
    )
    assert other.connections == 0


def test_a_peer_that_talks_is_hung_up_on(other: CmaBackend) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as talker:
        talker.connect(b"\0trunkline-cma-" + other.connection_info()[5:].hex().encode())
        talker.settimeout(PATIENCE)
        assert talker.recv(512).startswith(b"TLCM\x01")
        talker.send(b"hello?")
        with pytest.raises(ConnectionResetError):  # with what we sent unread
            talker.recv(512)


def test_opening_registering_and_closing_leaks_neither_descriptors_nor_threads_nor_memory() -> None:
    code = """
import os, resource
import numpy as np
from trunkline.backend.plugins.cma import CmaBackend
from trunkline.memory.kind import MemoryKind
memory = np.zeros(4096, np.uint8)
segments = np.array([[memory.ctypes.data, 4096, 0]], np.uint64)
kept = CmaBackend("kept")
def cycle():
    one, two = CmaBackend("one"), CmaBackend("two")
    peer = one.load_peer("two", two.connection_info())
    while peer.obstacle is not None:
        two.progress()
    kept.deregister(kept.register(MemoryKind.DRAM, segments))
    one.close()
    two.close()
def count():
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
def locked():
    return [line for line in open("/proc/self/status") if line.startswith(("VmLck", "VmPin"))]
for _ in range(50):
    cycle()
before, pinned = count(), locked()
maps = len(open("/proc/self/maps").readlines())
for _ in range(1000):
    cycle()
assert count() == before, (before, count())
assert locked() == pinned, (pinned, locked())
assert len(open("/proc/self/maps").readlines()) < maps + 20
"""
    subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=300,
    )


def test_nothing_is_asked_of_the_target_once_it_is_proved(backend: CmaBackend) -> None:
    memory = np.ones(4096, np.uint8)
    slots = np.zeros(1, np.int32)
    with CmaTarget(4096) as target:
        peer = target.load_into(backend)
        peer.connect(PATIENCE)
        assert peer.transports == ("process_vm",)
        target.stop()
        posting = make_posting(Operation.WRITE, memory, slots, memory, slots, [(0, 0, 4096)])
        posting.remote_address[:] = target.address
        assert backend.prepare(posting, peer).post() == Status.DONE
        target.resume()
        assert target.ask("count 1") == 4096
