"""The model backend: moves bytes within one agent, by copying memory while ``post`` runs."""

from __future__ import annotations

import ctypes
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.backend.contract import Capabilities, Cost, Operation, Posting, Status
from trunkline.errors import BackendError, ClosedError, MemoryRegistrationError
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trunkline.backend.contract import BackendPeer, Slots


class LoopbackBackend:
    """Copies between registered DRAM segments of one agent; a request is DONE when ``post`` returns.

    Remote slots are local ones. It is the contract in its plainest form, so it checks what it can: a posting
    whose rows leave their segments fails instead of copying.

    Args:
        agent_name: For messages.
    """

    name = "LOOPBACK"
    capabilities = Capabilities(
        frozenset({MemoryKind.DRAM}), own_kinds=frozenset({MemoryKind.DRAM}), cost=Cost(2e-6, 1e-6, 8e9)
    )

    def __init__(self, agent_name: str) -> None:
        self._agent_name = agent_name
        self._lock = threading.Lock()  # guards the slots
        self._segments: dict[int, tuple[int, int]] = {}
        self._next_slot = 0
        self._is_closed = False

    def register(self, kind: MemoryKind, segments: NDArray[np.uint64], names: Sequence[str] = ()) -> Slots:  # noqa: ARG002  memory has none
        """Register N×3 segments (address, length, device); all or none. Raises MemoryRegistrationError."""
        self.check_open()
        if kind is not MemoryKind.DRAM:
            raise MemoryRegistrationError(
                f"agent {self._agent_name!r}: the loopback backend can't register {kind.name} memory (only DRAM)",
                agent=self._agent_name,
                kind=kind.name,
            )
        address, length = segments[:, 0], segments[:, 1]
        bad = np.flatnonzero((address == 0) | (length == 0) | (address + length < address))
        if len(bad):
            row = int(bad[0])
            raise MemoryRegistrationError(
                f"agent {self._agent_name!r}: segment {row} of {len(segments)} ({int(length[row])} bytes at "
                f"{int(address[row]):#x}) is not memory; none was registered",
                agent=self._agent_name,
                row=row,
            )
        with self._lock:
            slots = np.arange(self._next_slot, self._next_slot + len(segments), dtype=np.int32)
            self._next_slot += len(segments)
            self._segments.update(zip(slots.tolist(), zip(address.tolist(), length.tolist(), strict=True), strict=True))
        return slots

    def deregister(self, slots: Slots) -> None:
        """Forget registered segments."""
        self.check_open()
        with self._lock:
            for slot in slots.tolist():
                self._segments.pop(slot, None)

    def prepare(self, posting: Posting, peer: BackendPeer | None) -> LoopbackRequest:
        """Bind a posting; ``peer`` must be None."""
        self.check_open()
        if peer is not None:
            raise BackendError(f"the loopback backend works within one agent; it can't reach peer {peer.name!r}")
        return LoopbackRequest(self, posting)

    def close(self) -> None:
        """Forget all segments. Idempotent."""
        with self._lock:
            self._is_closed = True
            self._segments.clear()

    @property
    def outstanding(self) -> int:
        """How many segments are registered."""
        with self._lock:
            return len(self._segments)

    def covers(self, slot: int, address: int, length: int) -> bool:
        """Return whether a range lies within a registered segment."""
        with self._lock:
            start, size = self._segments.get(slot, (0, 0))
        return start <= address and address + length <= start + size

    def check_open(self) -> None:
        """Raise ClosedError if the backend was closed."""
        if self._is_closed:
            raise ClosedError(f"the loopback backend of agent {self._agent_name!r} is closed", agent=self._agent_name)


class LoopbackRequest:
    """A posting of the loopback backend; ends within ``post``."""

    def __init__(self, backend: LoopbackBackend, posting: Posting) -> None:
        self.owner: Any = None
        self.status = Status.IDLE
        self.reason = ""
        self.completed = 0
        self.post_ns = 0
        self.total_ns = 0
        self.posting = posting
        self._backend = backend

    def post(self, notification: bytes | None = None) -> Status:
        """Copy everything. Notifications are not carried."""
        if notification is not None:
            raise BackendError("the loopback backend carries no notifications; its agent delivers its own")
        self.begin()
        self.advance(self.rows)
        return self.status

    @property
    def rows(self) -> int:
        """How many rows the posting has."""
        return len(self.posting.length)

    def poll(self) -> Status:
        """Return the status."""
        return self.status

    def wait(self, until: float) -> Status:  # noqa: ARG002  it never waits
        """Return the status."""
        return self.status

    def stop(self) -> None:
        """Nothing is ever left to stop."""

    def begin(self) -> None:
        """Start anew."""
        self._backend.check_open()
        self.status, self.reason, self.completed, self.total_ns = Status.IN_PROGRESS, "", 0, 0
        self._started_ns = time.perf_counter_ns()

    def advance(self, rows: int) -> None:
        """Copy up to ``rows`` more rows; after the last one the request is DONE."""
        posting = self.posting
        copies = zip(
            posting.local_slot.tolist(),
            posting.local_address.tolist(),
            posting.remote_slot.tolist(),
            posting.remote_address.tolist(),
            posting.length.tolist(),
            strict=True,
        )
        for local_slot, local, remote_slot, remote, length in list(copies)[self.completed : self.completed + rows]:
            if not self._backend.covers(local_slot, local, length):
                self.end(Status.FAILED, f"{length} bytes at {local:#x} are not in registered segment {local_slot}")
                return
            if not self._backend.covers(remote_slot, remote, length):
                self.end(Status.FAILED, f"{length} bytes at {remote:#x} are not in registered segment {remote_slot}")
                return
            if posting.operation is Operation.WRITE:
                ctypes.memmove(remote, local, length)
            else:
                ctypes.memmove(local, remote, length)
            self.completed += 1
        self.post_ns = self.post_ns or time.perf_counter_ns() - self._started_ns
        if self.completed == self.rows:
            self.end(Status.DONE)

    def end(self, status: Status, reason: str = "") -> None:
        """Make the request quiet."""
        self.reason = reason
        self.total_ns = time.perf_counter_ns() - self._started_ns
        self.post_ns = self.post_ns or self.total_ns
        self.status = status
