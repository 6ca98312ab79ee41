from __future__ import annotations

import time

import numpy as np
import pytest

from trunkline.backend.contract import Operation, Status
from trunkline.errors import PeerGoneError, TransferStateError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import make_posting, segments_of
from trunkline.testing.stepped import SteppedBackend, SteppedPeer, SteppedRequest


def posted(backend: SteppedBackend) -> tuple[SteppedPeer, SteppedRequest, np.ndarray]:
    other = SteppedBackend("other")
    local, remote = np.ones(8, np.uint8), np.zeros(8, np.uint8)
    peer = backend.load_peer("other", other.connection_info())
    keys = other.remote_keys(other.register(MemoryKind.DRAM, segments_of(remote)))
    slots = peer.load_segments(MemoryKind.DRAM, segments_of(remote), keys)
    local_slots = backend.register(MemoryKind.DRAM, segments_of(local))
    rows = [(0, 0, 4), (4, 4, 4)]
    request = backend.prepare(make_posting(Operation.WRITE, local, local_slots, remote, slots, rows), peer)
    request.owner = local
    assert request.post(b"note") == Status.IN_PROGRESS
    return peer, request, remote


def test_nothing_moves_until_the_test_says_so() -> None:
    backend = SteppedBackend("agent")
    peer, request, remote = posted(backend)
    assert request.wait(0) == Status.IN_PROGRESS
    with pytest.raises(TransferStateError):
        request.post()
    request.advance(1)
    assert remote.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert (request.poll(), request.completed, backend.sent) == (Status.IN_PROGRESS, 1, [])
    request.complete()
    assert remote.all()
    assert backend.sent == [(peer, b"note", False)]
    backend.run(time.monotonic() + 60)
    assert backend.take_finished() == [request]
    assert backend.take_finished() == []
    assert backend.in_flight == []


def test_an_end_seen_by_poll_is_not_reported_again() -> None:
    backend = SteppedBackend("agent")
    _, request, _ = posted(backend)
    request.advance(1)
    request.stop()
    request.drain()
    assert request.poll() == Status.STOPPED
    assert backend.take_finished() == []


def test_a_broken_connection_fails_what_is_in_flight() -> None:
    backend = SteppedBackend("agent")
    peer, request, _ = posted(backend)
    peer.break_connection("reset")
    assert (request.poll(), request.reason, peer.failure) == (Status.FAILED, "reset", "reset")
    assert backend.take_failed_peers() == [peer]
    assert backend.take_failed_peers() == []
    peer.answers = False
    with pytest.raises(PeerGoneError):
        peer.connect(1)


def test_notifications_arrive_and_overflow() -> None:
    backend = SteppedBackend("agent")
    backend.receive(b"a")
    backend.receive(b"b", failure=True)
    backend.overflow(3)
    assert backend.take_notifications() == ([(b"a", False), (b"b", True)], 3)
    assert backend.take_notifications() == ([], 0)


def test_close_fails_what_is_in_flight() -> None:
    backend = SteppedBackend("agent")
    _, request, _ = posted(backend)
    backend.close()
    assert request.poll() == Status.FAILED
