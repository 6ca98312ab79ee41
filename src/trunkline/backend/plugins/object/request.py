"""A posting of the OBJ backend."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.backend.contract import Posting, Status
from trunkline.backend.plugins.object.plan import Plan
from trunkline.backend.plugins.object.worker import Round, Worker
from trunkline.errors import BackendError, TransferStateError

if TYPE_CHECKING:
    from trunkline.backend.plugins.object.segment import SegmentTable


class ObjectRequest:
    """A posting between memory and objects; planned when it is made."""

    def __init__(self, worker: Worker, table: SegmentTable, posting: Posting, part_size: int) -> None:
        self.owner: Any = None
        self.status = Status.IDLE
        self.reason = ""
        self.post_ns = 0
        self.total_ns = 0
        self.posting = posting
        self._worker = worker
        self._table = table
        self._round: Round | None = None
        self._plan: Plan | None = None
        self._started_ns = 0
        self._slots = np.unique(np.concatenate([posting.local_slot, posting.remote_slot]))
        with worker.lock:
            self._serials = table.serials(self._slots)
            self._obstacle = self._outside()
            slots, which = np.unique(posting.remote_slot, return_inverse=True)
            named = [] if self._obstacle else [table.keys[slot] for slot in slots.tolist()]
        if not self._obstacle:
            numbers = {key: number for number, key in enumerate(dict.fromkeys(named))}
            objects = np.array([numbers[key] for key in named], np.int64)[which]
            self._plan = Plan(posting, list(numbers), objects, part_size)
            self._obstacle = self._plan.obstacle

    @property
    def completed(self) -> int:
        """How many leading rows have arrived."""
        if self._plan is None or self._round is None:
            return 0
        return self._plan.completed(self._round.done)

    def post(self, notification: bytes | None = None) -> Status:
        """Have the worker carry it out; returns at once.

        Raises:
            BackendError: It can't: it has no thread, or a notification was given.
            TransferStateError: It is still in progress.
        """
        worker = self._worker
        if notification is not None:
            raise BackendError("the OBJ backend carries no notifications")
        started = time.perf_counter_ns()
        worker.check_open()  # also before the lock, which a child process might find taken
        with worker.lock:
            worker.check_open()
            if self.status is Status.IN_PROGRESS:
                raise TransferStateError("this request of the OBJ backend is still in progress")
            worker.finished.pop(self, None)
            self.status, self._round, self.reason = Status.IDLE, None, ""
            self.total_ns, self._started_ns = 0, started
            obstacle = self._obstacle
            if not np.array_equal(self._table.serials(self._slots), self._serials):
                obstacle = "a segment of this transfer is registered no more"
            if obstacle or self._plan is None:
                self.end(Status.FAILED, obstacle)
            else:
                self._round = Round(self._plan)
                if len(self._round.done):
                    worker.begin(self, self._round)
                    self.status = Status.IN_PROGRESS
                else:
                    self.end(Status.DONE)
            self.post_ns = max(1, time.perf_counter_ns() - started)
            return self.status

    def poll(self) -> Status:
        """Return the status; an end is thereby reported."""
        self._worker.check_process()
        with self._worker.lock:
            if self.status is not Status.IN_PROGRESS:
                self._worker.finished.pop(self, None)
            return self.status

    def wait(self, until: float) -> Status:
        """Sleep until the request is quiet or ``time.monotonic()`` reaches ``until``."""
        self._worker.wait(lambda: self.status is not Status.IN_PROGRESS, until)
        return self.poll()

    def stop(self) -> None:
        """Begin nothing more of it. Objects that are not all sent by then stay as they were."""
        if self._round is not None:
            self._worker.stop(self._round)

    def end(self, status: Status, reason: str = "") -> None:
        """Become quiet (under the worker's lock)."""
        self.reason = reason
        self.total_ns = max(1, time.perf_counter_ns() - self._started_ns)
        self.status = status

    def _outside(self) -> str:
        posting = self.posting
        for side, slots, address in (
            ("memory", posting.local_slot, posting.local_address),
            ("an object", posting.remote_slot, posting.remote_address),
        ):
            rows = self._table.outside(slots, address, posting.length)
            if len(rows):
                row = int(rows[0])
                return (
                    f"row {row}: {int(posting.length[row])} bytes at {int(address[row]):#x} of {side} are not in "
                    f"registered segment {int(slots[row])}"
                )
        return ""
