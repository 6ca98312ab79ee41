"""The model backend: moves bytes within one agent, between memory, files and objects, while ``post`` runs."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trunkline.backend.contract import Capabilities, Cost, Operation, Posting, Status
from trunkline.errors import BackendError, ClosedError, MemoryRegistrationError
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trunkline.backend.contract import BackendPeer, Slots


class Segment(NamedTuple):
    """A registered range.

    Attributes:
        start: Its address, or its offset.
        size: Its size.
        place: What it is a range of: an open file by its descriptor, an object, or None for memory.
    """

    start: int
    size: int
    place: int | bytearray | None

    def covers(self, address: int, length: int) -> bool:
        """Return whether a range lies within it."""
        return self.start <= address and address + length <= self.start + self.size


_NOTHING = Segment(0, 0, None)
_KINDS = frozenset({MemoryKind.DRAM, MemoryKind.BLOCK, MemoryKind.FILE, MemoryKind.OBJECT})


class LoopbackBackend:
    """Copies between registered segments of one agent; a request is DONE when ``post`` returns.

    Remote slots are local ones, and any kind may be on either side but VRAM, which no processor reaches without a
    driver. Objects are kept in memory as long as the backend. It is the contract in its plainest form, so it checks
    what it can: a posting whose rows leave their segments fails instead of copying.

    Args:
        agent_name: For messages.

    Attributes:
        objects: What was stored, by key.
    """

    name = "LOOPBACK"
    capabilities = Capabilities(_KINDS, own_kinds=_KINDS, cost=Cost(start=2e-6, row=2e-6, rate=2e9))

    def __init__(self, agent_name: str) -> None:
        self._agent_name = agent_name
        self._lock = threading.Lock()  # guards the slots
        self.objects: dict[str, bytearray] = {}
        self._segments: dict[int, Segment] = {}
        self._next_slot = 0
        self._is_closed = False

    def register(self, kind: MemoryKind, segments: NDArray[np.uint64], names: Sequence[str] = ()) -> Slots:
        """Register N×3 segments (address, length, device); all or none. Raises MemoryRegistrationError."""
        self.check_open()
        if kind not in self.capabilities.local_kinds:
            known = ", ".join(sorted(kind.name for kind in self.capabilities.local_kinds))
            raise MemoryRegistrationError(
                f"agent {self._agent_name!r}: the {self.name} backend can't register {kind.name} memory (only {known})",
                agent=self._agent_name,
                kind=kind.name,
            )
        address, length = segments[:, 0], segments[:, 1]
        is_memory = kind is MemoryKind.DRAM
        bad = np.flatnonzero(((address == 0) & is_memory) | (length == 0) | (address + length < address))
        if len(bad):
            raise self._refused(
                int(bad[0]), segments, "is not memory" if is_memory else "is no range of a file or object"
            )
        places: Sequence[int | bytearray | None]
        if is_memory:
            places = [None] * len(segments)
        elif kind is MemoryKind.OBJECT:
            places = self._stored(segments, names)
        else:
            places = self._duplicated(segments)
        with self._lock:
            slots = np.arange(self._next_slot, self._next_slot + len(segments), dtype=np.int32)
            self._next_slot += len(segments)
            made = map(Segment, address.tolist(), length.tolist(), places)
            self._segments.update(zip(slots.tolist(), made, strict=True))
        return slots

    def deregister(self, slots: Slots) -> None:
        """Forget registered segments."""
        self.check_open()
        with self._lock:
            _close([self._segments.pop(slot, _NOTHING).place for slot in slots.tolist()])

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
            _close([segment.place for segment in self._segments.values()])
            self._segments.clear()

    @property
    def outstanding(self) -> int:
        """How many segments are registered."""
        with self._lock:
            return len(self._segments)

    def segment(self, slot: int) -> Segment:
        """Return what is registered under a slot; an empty range if nothing is."""
        with self._lock:
            return self._segments.get(slot, _NOTHING)

    def check_open(self) -> None:
        """Raise ClosedError if the backend was closed."""
        if self._is_closed:
            raise ClosedError(f"the loopback backend of agent {self._agent_name!r} is closed", agent=self._agent_name)

    def _stored(self, segments: NDArray[np.uint64], keys: Sequence[str]) -> list[bytearray]:
        if len(keys) != len(segments) or not all(keys):
            row = next((row for row, key in enumerate(keys) if not key), min(len(keys), len(segments) - 1))
            raise self._refused(row, segments, "has no key (names=)")
        return [self.objects.setdefault(key, bytearray()) for key in keys]

    def _duplicated(self, segments: NDArray[np.uint64]) -> list[int]:
        files: list[int] = []
        for row, number in enumerate(segments[:, 2].tolist()):
            try:
                files.append(os.dup(number))
            except (OSError, OverflowError) as error:
                _close(files)
                raise self._refused(row, segments, f"has no open file: {error}") from error
        return files

    def _refused(self, row: int, segments: NDArray[np.uint64], why: str) -> MemoryRegistrationError:
        address, length, device = segments[row].tolist()
        return MemoryRegistrationError(
            f"agent {self._agent_name!r}: segment {row} of {len(segments)} ({length} bytes at {address:#x}, device "
            f"{device}) {why}; none was registered",
            agent=self._agent_name,
            row=row,
        )


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
            near, far = self._backend.segment(local_slot), self._backend.segment(remote_slot)
            for segment, address, slot in ((near, local, local_slot), (far, remote, remote_slot)):
                if not segment.covers(address, length):
                    self.end(Status.FAILED, f"{length} bytes at {address:#x} are not in registered segment {slot}")
                    return
            source, sink = (near.place, local), (far.place, remote)
            if posting.operation is Operation.READ:
                source, sink = sink, source
            try:
                _copy(source, sink, length)
            except OSError as error:
                self.end(Status.FAILED, f"{posting.operation.name} of {length} bytes, row {self.completed}: {error}")
                return
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


def _copy(source: tuple[int | bytearray | None, int], sink: tuple[int | bytearray | None, int], length: int) -> None:
    """Copy bytes between two places: an offset in a file or an object, or an address."""
    (here, start), (there, at) = source, sink
    if here is None and there is None:
        ctypes.memmove(at, start, length)
        return
    data = ctypes.string_at(start, length) if here is None else _read(here, start, length)
    if there is None:
        ctypes.memmove(at, data, length)
    elif isinstance(there, bytearray):
        there.extend(bytes(max(0, at - len(there))))
        there[at : at + length] = data
    else:
        done = 0
        while done < length:
            done += os.pwrite(there, memoryview(data)[done:], at + done)


def _read(place: int | bytearray, offset: int, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        at, left = offset + len(data), length - len(data)
        piece = bytes(place[at : at + left]) if isinstance(place, bytearray) else os.pread(place, left, at)
        if not piece:
            what = "object" if isinstance(place, bytearray) else "file"
            raise OSError(errno.EIO, f"the {what} ends after {len(data)} of {length} bytes at {offset}")
        data += piece
    return bytes(data)


def _close(places: Sequence[int | bytearray | None]) -> None:
    for place in places:
        if isinstance(place, int):
            os.close(place)
