from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.backend.contract import ConnectionInfo, Operation, Status
from trunkline.backend.plugins.ucx import UcxBackend
from trunkline.errors import (
    BackendError,
    ClosedError,
    ConfigurationError,
    ForkedError,
    MetadataDecodeError,
    NotRegisteredError,
)
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.model import RemoteKeys
from trunkline.testing.link import make_posting, segments_of
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only")


@pytest.fixture
def backend() -> Iterator[UcxBackend]:
    made = UcxBackend("agent", devices="lo")
    yield made
    made.close()


@pytest.fixture
def other() -> Iterator[UcxBackend]:
    """A target, driven by a thread of its own: peers wait for its progress when they wire up."""
    made = UcxBackend("other", devices="lo")
    ended = threading.Event()

    def drive() -> None:
        while not ended.wait(0.001):
            made.progress()

    thread = threading.Thread(target=drive, name="other")
    thread.start()
    yield made
    ended.set()
    thread.join(PATIENCE)
    made.close()


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'nosuchdevice0'.* lo"):
        UcxBackend("agent", devices=["lo", "nosuchdevice0"])


def test_hostile_metadata_is_refused_by_name(backend: UcxBackend, other: UcxBackend) -> None:
    with pytest.raises(MetadataDecodeError, match="peer 'decode-0'"):
        backend.load_peer("decode-0", ConnectionInfo(b"\x07" + other.connection_info()[1:]))
    peer = backend.load_peer("decode-0", other.connection_info())
    memory = np.zeros(8, np.uint8)
    with pytest.raises(MetadataDecodeError, match="remote key 0 of 1"):
        peer.load_segments(MemoryKind.DRAM, segments_of(memory), RemoteKeys.of([b"garbage"]))


def test_keys_of_unknown_slots_are_refused(backend: UcxBackend) -> None:
    with pytest.raises(NotRegisteredError):
        backend.remote_keys(np.array([40], np.int32))
    assert len(backend.remote_keys(np.empty(0, np.int32))) == 0


def test_within_one_agent_it_moves_nothing(backend: UcxBackend) -> None:
    memory = np.zeros(8, np.uint8)
    slots = backend.register(MemoryKind.DRAM, segments_of(memory))
    with pytest.raises(BackendError, match="loopback"):
        backend.prepare(make_posting(Operation.READ, memory, slots, memory, slots, [(0, 0, 8)]), None)


def test_connects_and_tells_the_transports(backend: UcxBackend, other: UcxBackend) -> None:
    peer = backend.load_peer("other", other.connection_info())
    before: tuple[str, ...] = peer.transports
    assert not before
    peer.connect(PATIENCE)
    chosen: tuple[str, ...] = peer.transports
    assert "tcp/lo" in chosen
    assert peer.failure is None
    assert "connected" in repr(peer)


def test_a_notification_queue_that_is_full_counts_what_it_drops(other: UcxBackend) -> None:
    small = UcxBackend("small", devices="lo", notification_count=4, notification_bytes=1000)
    peer = other.load_peer("small", small.connection_info())
    for size in (10, 10, 990, 10, 10, 10):  # the third does not fit, nor the last
        request = other.notify(peer, bytes(size))
        end = time.monotonic() + PATIENCE
        while request.poll() == Status.IN_PROGRESS and time.monotonic() < end:
            small.progress()
    end = time.monotonic() + PATIENCE
    payloads: list[tuple[bytes, bool]] = []
    dropped = 0
    while len(payloads) + dropped < 6 and time.monotonic() < end:
        small.progress()
        if time.monotonic() > end - PATIENCE + 0.2:  # all had time to arrive, so that the bound is what counts
            payloads, dropped = small.take_notifications()
    assert ([len(payload) for payload, _ in payloads], dropped) == ([10, 10, 10, 10], 2)
    assert small.take_notifications() == ([], 0)
    small.close()


def test_a_failed_peer_is_reported_once_and_comes_back_after_a_pause(
    backend: UcxBackend, other: UcxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.backend.plugins.ucx.peer._FIRST_PAUSE", 10 * PATIENCE)
    memory = np.ones(8, np.uint8)
    slots = backend.register(MemoryKind.DRAM, segments_of(memory))
    remote = np.zeros(8, np.uint8)
    keys = other.remote_keys(other.register(MemoryKind.DRAM, segments_of(remote)))
    peer = backend.load_peer("other", other.connection_info())
    remote_slots = peer.load_segments(MemoryKind.DRAM, segments_of(remote), keys)
    request = backend.prepare(make_posting(Operation.WRITE, memory, slots, remote, remote_slots, [(0, 0, 8)]), peer)
    peer.connect(PATIENCE)
    peer.abort("out of patience")
    assert "out of patience" in repr(peer)
    assert backend.take_failed_peers() == []
    assert request.post() == Status.FAILED  # too soon
    assert request.reason == "out of patience"
    peer._pause = 0.0  # what its passing comes to
    status = request.post()
    assert status == Status.DONE or request.wait(time.monotonic() + PATIENCE) == Status.DONE
    assert peer.failure is None
    assert remote.all()


def test_a_closed_backend_refuses_everything(other: UcxBackend) -> None:
    backend = UcxBackend("agent", devices="lo")
    peer = backend.load_peer("other", other.connection_info())
    peer.connect(PATIENCE)
    runner = threading.Thread(target=backend.run, args=(time.monotonic() + 10 * PATIENCE,), name="run")
    runner.start()
    time.sleep(0.02)  # most likely asleep by now
    backend.close()
    runner.join(PATIENCE)
    assert not runner.is_alive()
    for refused in (backend.connection_info, backend.progress, backend.wake, backend.take_finished):
        with pytest.raises(ClosedError, match="'agent'"):
            refused()
    with pytest.raises(ClosedError):
        peer.connect(1)
    peer.close()
    backend.close()
    assert "closed" in repr(backend)


def test_a_forked_child_is_told_and_closes_nothing(backend: UcxBackend, other: UcxBackend) -> None:
    peer = backend.load_peer("other", other.connection_info())
    peer.connect(PATIENCE)
    code = os.fork()
    if code == 0:
        try:
            with pytest.raises(ForkedError):
                backend.progress()
            with pytest.raises(ForkedError):
                peer.connect(1)
            backend.close()
            peer.close()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(code, 0)[1]) == 0
    request = backend.notify(peer, b"still here")
    assert request.wait(time.monotonic() + PATIENCE) == Status.DONE


def test_opening_and_closing_leaks_neither_descriptors_nor_threads() -> None:
    code = """
import os
from trunkline.backend.plugins.ucx import UcxBackend
def cycle():
    one, two = UcxBackend("one", devices="lo"), UcxBackend("two", devices="lo")
    one.load_peer("two", two.connection_info()).connect(60)
    one.close()
    two.close()
def count():
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
cycle()
before = count()
for _ in range(50):
    cycle()
assert count() == before, (before, count())
"""
    subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=300,
    )
