"""A posting of the POSIX backend."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.backend.contract import Operation, Posting, Status
from trunkline.backend.file import errno_words
from trunkline.backend.plugins.posix._native import Job
from trunkline.errors import BackendError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.backend.contract import Slots
    from trunkline.backend.plugins.posix.backend import PosixBackend
    from trunkline.backend.plugins.posix.file import OpenFile
    from trunkline.backend.plugins.posix.layout import Layout

_END_OF_FILE = -1
_NOTHING_TAKEN = -2


class PosixRequest:
    """A posting as system calls, laid out once and posted any number of times.

    Args:
        backend: The backend.
        posting: The posting.
        files: The files it uses.
        layout: Its system calls; they refer to ``files``.
        slots: Each slot it uses once.
        tenancy: Their numbers at the time: others mean that a slot passed to another segment.
    """

    def __init__(
        self,
        backend: PosixBackend,
        posting: Posting,
        files: list[OpenFile],
        layout: Layout,
        slots: Slots,
        tenancy: NDArray[np.int64],
    ) -> None:
        self.owner: Any = None
        self._backend = backend
        self._posting = posting
        self._files = files
        self._layout = layout
        self._slots = slots
        self._tenancy = tenancy
        self._total_bytes = int(posting.length.sum())
        self._done = np.zeros(len(layout.length), np.uint8)
        writes = posting.operation is Operation.WRITE
        self._job = Job(
            backend.pool,
            [file.native for file in files],
            writes,
            writes and backend.fsync,
            layout.file,
            layout.offset,
            layout.length,
            layout.first,
            layout.bounce,
            layout.pieces,
            self._done,
        )
        self._is_stale = False
        self._post_ns = 0

    def post(self, notification: bytes | None = None) -> Status:
        """Start. Notifications are not carried.

        Raises:
            TransferStateError: It is in progress.
            ClosedError: The backend is closed.
            BackendError: There is a notification.
        """
        began = time.perf_counter_ns()
        if notification is not None:
            raise BackendError("the POSIX backend carries no notifications; send it through another backend")
        self._backend.pool.check()
        is_running = self._job.status is Status.IN_PROGRESS  # then the job refuses
        self._is_stale = not is_running and not self._backend.holds(self._slots, self._tenancy)
        if self._is_stale:
            return Status.FAILED
        status = self._job.post(self)
        self._post_ns = time.perf_counter_ns() - began
        return status

    def poll(self) -> Status:
        """Return the status. A caller that polls in a tight loop sleeps here, for 0.1 ms at most or until the end."""
        return Status.FAILED if self._is_stale else self._job.poll()

    def wait(self, until: float) -> Status:
        """Sleep until the request is quiet or ``time.monotonic()`` reaches ``until``; return the status."""
        return Status.FAILED if self._is_stale else self._job.wait(until)

    def stop(self) -> None:
        """Begin no more system calls; those under way, at most 1 MiB each or 64 small ones a thread, end."""
        self._job.stop()

    @property
    def reason(self) -> str:
        """Why it FAILED: operation, file, offset, errno, and how many bytes landed."""
        if self._is_stale:
            return "memory or a file of this request is not registered any more"
        if self._job.status is not Status.FAILED:
            return ""
        landed = f"{self._job.landed:,} of {self._total_bytes:,} bytes landed"
        failure = self._job.failure
        if failure is None:
            return f"the backend was closed; {landed}"
        number, file, offset, size, is_sync = failure
        label = repr(self._files[file].label)
        if is_sync:
            return (
                f"fdatasync of file {label} failed with {errno_words(number)}; {landed}, but the device may not have "
                "them"
            )
        what = f"{self._posting.operation.name} of file {label} at offset {offset:,}"
        if number == _END_OF_FILE:
            return f"{what} found the file's end (it has {size:,} bytes); {landed}"
        if number == _NOTHING_TAKEN:
            return f"{what}: the kernel took nothing and gave no reason; {landed}"
        return f"{what} failed with {errno_words(number)}; {landed}"

    @property
    def completed(self) -> int:
        """How many leading rows have arrived. Rows are moved in the order of the files, so more may have."""
        if self._is_stale or self._job.status is Status.IDLE:
            return 0
        return self._layout.completed(self._done)

    @property
    def post_ns(self) -> int:
        """How long the last ``post`` took, in nanoseconds."""
        return self._post_ns

    @property
    def total_ns(self) -> int:
        """Nanoseconds from the last ``post`` until the request was quiet; 0 before that."""
        return 0 if self._is_stale else self._job.total_ns
