from __future__ import annotations

import numpy as np
import pytest

from trunkline.backend.contract import Operation, Status
from trunkline.backend.plugins.loopback import LoopbackBackend
from trunkline.errors import BackendError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import make_posting, segments_of
from trunkline.testing.stepped import SteppedBackend


def test_refuses_rows_outside_their_segments() -> None:
    backend = LoopbackBackend("agent")
    local, remote = np.ones(16, np.uint8), np.zeros(16, np.uint8)
    slots = backend.register(MemoryKind.DRAM, segments_of(local, remote))
    rows = [(0, 0, 8), (8, 8, 9)]
    request = backend.prepare(make_posting(Operation.WRITE, local, slots[:1], remote, slots[1:], rows), None)
    assert request.post() == Status.FAILED
    assert "9 bytes" in request.reason
    assert request.completed == 1
    assert remote.tolist() == [1] * 8 + [0] * 8


def test_has_no_peers_and_carries_no_notifications() -> None:
    backend, memory = LoopbackBackend("agent"), np.zeros(8, np.uint8)
    slots = backend.register(MemoryKind.DRAM, segments_of(memory))
    posting = make_posting(Operation.READ, memory, slots, memory, slots, [(0, 0, 8)])
    stepped = SteppedBackend("other")
    with pytest.raises(BackendError, match="can't reach peer 'other'"):
        backend.prepare(posting, stepped.load_peer("other", stepped.connection_info()))
    with pytest.raises(BackendError, match="notifications"):
        backend.prepare(posting, None).post(b"note")


def test_counts_what_is_registered() -> None:
    backend = LoopbackBackend("agent")
    slots = backend.register(MemoryKind.DRAM, segments_of(np.zeros(8, np.uint8), np.zeros(8, np.uint8)))
    assert backend.outstanding == 2
    backend.deregister(slots)
    assert backend.outstanding == 0
