"""The model backend: moves bytes within one agent, between memory and files, while ``post`` runs."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from trunkline.backend.contract import Operation, Posting, Status
from trunkline.errors import BackendError, ClosedError

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Segment(NamedTuple):
    """A registered range: of memory, or where there is a descriptor of that file."""

    start: int
    size: int
    file: int | None

    def segment(self, slot: int) -> _Segment:
        """Return what is registered under a slot; an empty range if nothing is."""
        with self._lock:
            return self._segments.get(slot, _NOTHING)

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
            near, far = self._backend.segment(local_slot), self._backend.segment(remote_slot)
            for segment, address, slot in ((near, local, local_slot), (far, remote, remote_slot)):
                if not segment.covers(address, length):
                    self.end(Status.FAILED, f"{length} bytes at {address:#x} are not in registered segment {slot}")
                    return
            source, sink = ((near, local), (far, remote))[:: 1 if posting.operation is Operation.WRITE else -1]
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


def _copy(source: tuple[_Segment, int], sink: tuple[_Segment, int], length: int) -> None:
    (here, start), (there, at) = source, sink
    if here.file is None and there.file is None:
        ctypes.memmove(at, start, length)
        return
    data = memoryview(ctypes.string_at(start, length) if here.file is None else _read(here.file, start, length))
    if there.file is None:
        ctypes.memmove(at, data.obj, length)
        return
    while data:
        count = os.pwrite(there.file, data, at)
        data, at = data[count:], at + count


def _read(file: int, offset: int, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = os.pread(file, length - len(data), offset + len(data))
        if not piece:
            raise OSError(errno.EIO, f"the file ends after {len(data)} of {length} bytes at {offset}")
        data += piece
    return bytes(data)


def _close(files: Sequence[int | None]) -> None:
    for file in files:
        if file is not None:
            os.close(file)
