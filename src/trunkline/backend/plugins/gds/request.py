"""A posting cut into pieces for cuFile, and how far it got."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.backend.contract import Operation, Posting, Status
from trunkline.backend.plugins.gds.cufile import IO_PARAMS, READ, WRITE
from trunkline.backend.plugins.gds.segment import RegisteredFile
from trunkline.errors import BackendError, TransferStateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.backend.plugins.gds.pool import Pool
    from trunkline.backend.plugins.gds.segment import Resource, SegmentTable

_BATCH = 1
"""CUfileBatchMode_t."""


class Pieces:
    """What cuFile is asked for: rows that follow one another on both sides are joined, long ones are cut.

    Attributes:
        params: IO_PARAMS of each piece.
        device: The GPU of each piece.
        cuts: Where pieces of another GPU begin, and the number of pieces.
        row_end: Bytes of the posting up to the end of each row.
    """

    def __init__(self, posting: Posting, table: SegmentTable, most: int) -> None:
        self.row_end = np.cumsum(posting.length, dtype=np.uint64)
        rows = np.flatnonzero(posting.length)
        local, remote, length = posting.local_address[rows], posting.remote_address[rows], posting.length[rows]
        near, far = posting.local_slot[rows], posting.remote_slot[rows]
        follows = (
            (near[1:] == near[:-1])
            & (far[1:] == far[:-1])
            & (local[1:] == local[:-1] + length[:-1])
            & (remote[1:] == remote[:-1] + length[:-1])
        )
        first = np.flatnonzero(np.concatenate([np.ones(min(1, len(rows)), np.bool_), ~follows]))
        total = np.add.reduceat(length, first) if len(first) else length
        count = ((total + np.uint64(most - 1)) // np.uint64(most)).astype(np.int64)
        run = np.repeat(np.arange(len(first)), count)
        within = (np.arange(len(run)) - np.repeat(np.cumsum(count) - count, count)).astype(np.uint64) * np.uint64(most)
        row = first[run]
        self.params = np.zeros(len(run), IO_PARAMS)
        self.params["mode"] = _BATCH
        self.params["opcode"] = READ if posting.operation is Operation.READ else WRITE
        # The registered address and the way from there: any other address counts as not registered.
        self.params["base"] = table.start[near[row]]
        self.params["base_offset"] = local[row] + within - table.start[near[row]]
        self.params["file_offset"] = remote[row] + within
        self.params["size"] = np.minimum(total[run] - within, np.uint64(most))
        self.params["handle"] = table.handle[far[row]]
        self.device = table.device[near[row]]
        self.cuts = np.append(np.flatnonzero(np.diff(self.device)) + 1, len(run))


class GdsRequest:
    """A posting of a cuFile backend."""

    def __init__(self, pool: Pool, posting: Posting) -> None:
        self.owner: Any = None
        self.status = Status.IDLE
        self.reason = ""
        self.post_ns = 0
        self.total_ns = 0
        self.posting = posting
        self.is_stopping = False
        self.pieces: Pieces | None = None
        self.running = 0
        """How many workers are at it."""
        self.failure = ""
        """The first piece's that failed."""
        self._pool = pool
        self._next = 0
        self._moved = np.zeros(0, np.uint64)
        self._started_ns = 0
        self._slots = np.unique(np.concatenate([posting.local_slot, posting.remote_slot]))
        table = pool.table
        with pool.lock:
            known = self._slots[(self._slots >= 0) & (self._slots < len(table.resources))]
            self._generation = table.generation[known]
            self._slots = known
            held = dict.fromkeys(table.resources[slot] for slot in known.tolist())
            self.resources: list[Resource] = [resource for resource in held if resource is not None]
            """What it holds while it is in progress."""

    @property
    def completed(self) -> int:
        """How many leading rows have arrived."""
        if self.pieces is None or len(self._moved) != len(self.pieces.params):
            return 0
        short = np.flatnonzero(self._moved < self.pieces.params["size"])
        last = int(short[0]) + 1 if len(short) else len(self._moved)
        return int(np.searchsorted(self.pieces.row_end, self._moved[:last].sum(dtype=np.uint64), side="right"))

    def post(self, notification: bytes | None = None) -> Status:
        """Have the pool's threads carry it out; returns at once."""
        pool = self._pool
        if notification is not None:
            raise BackendError(f"the {pool.name} backend carries no notifications")
        started = time.perf_counter_ns()
        pool.check_open()  # also before the lock, which a child process might find taken
        with pool.lock:
            pool.check_open()
            if self.status is Status.IN_PROGRESS:
                raise TransferStateError(f"this request of the {pool.name} backend is still in progress")
            pool.start_threads()
            pool.finished.pop(self, None)
            self.reason = self.failure = ""
            self.is_stopping = False
            self.total_ns = self._next = 0
            self._started_ns = started
            self._moved = self._moved[:0]
            obstacle = self._obstacle(pool.table)
            if obstacle:
                self.status, self.reason = Status.FAILED, obstacle
                self.total_ns = max(1, time.perf_counter_ns() - started)
            else:
                if self.pieces is None:
                    self.pieces = Pieces(self.posting, pool.table, pool.max_request_size)
                self._moved = np.zeros(len(self.pieces.params), np.uint64)
                self.status = Status.IN_PROGRESS if len(self._moved) else Status.DONE
                if len(self._moved):
                    for resource in self.resources:
                        resource.holders += 1
                    pool.enqueue(self, len(self._moved))
            self.post_ns = max(1, time.perf_counter_ns() - started)
            if self.status is Status.DONE:
                self.total_ns = self.post_ns
            return self.status

    def _obstacle(self, table: SegmentTable) -> str:
        """Say why it can't be posted: segments that are registered no more, rows that leave them."""
        if not np.array_equal(table.generation[self._slots], self._generation):
            return "a segment of this transfer is registered no more"
        posting = self.posting
        for side, slots, address in (
            ("memory", posting.local_slot, posting.local_address),
            ("the file", posting.remote_slot, posting.remote_address),
        ):
            bad = np.flatnonzero(table.outside(slots, address, posting.length))
            if len(bad):
                row = int(bad[0])
                return (
                    f"row {row}: {int(posting.length[row])} bytes at {int(address[row]):#x} of {side} "
                    f"are not in registered segment {int(slots[row])}"
                )
        near, far = table.handle[posting.local_slot], table.handle[posting.remote_slot]
        if near.any() or not far.all():
            return "cuFile moves bytes between registered memory (local) and registered files (remote)"
        return ""

    def poll(self) -> Status:
        """Return the status; an end is thereby reported."""
        if self.status is not Status.IN_PROGRESS:
            self._pool.check_process()
            with self._pool.lock:  # not between the end and its being noted, nor while finished ones are taken
                self._pool.finished.pop(self, None)
        return self.status

    def wait(self, until: float) -> Status:
        """Sleep until the request is quiet or ``time.monotonic()`` reaches ``until``; return the status."""
        self._pool.wait(lambda: self.status is not Status.IN_PROGRESS, until)
        return self.poll()

    def stop(self) -> None:
        """Ask cuFile for no more pieces, and to cancel those it has not begun."""
        self._pool.stop(self)

    def take(self, most: int) -> tuple[int, int]:
        """Hand out the next pieces, all of one GPU (under the pool's lock)."""
        assert self.pieces is not None
        first = self._next
        cut = int(self.pieces.cuts[np.searchsorted(self.pieces.cuts, first, side="right")])
        self._next = min(first + most, cut)
        return first, self._next

    @property
    def is_over(self) -> bool:
        """Whether cuFile is to be asked for nothing more."""
        return self.is_stopping or bool(self.failure)

    def file_name(self, piece: Any) -> str:
        """Return the name of a piece's file, for messages."""
        handle = int(piece["handle"])
        files = (each for each in self.resources if isinstance(each, RegisteredFile) and each.handle == handle)
        return next((each.name for each in files), "a file")

    @property
    def left(self) -> int:
        """How many pieces are still to be handed out."""
        return 0 if self.is_over else len(self._moved) - self._next

    def book(self, first: int, moved: NDArray[np.uint64], failure: str) -> None:
        """Take what a worker did (under the pool's lock)."""
        self._moved[first : first + len(moved)] = moved
        self.failure = self.failure or failure

    def end(self, closed: str) -> None:
        """Become quiet (under the pool's lock)."""
        assert self.pieces is not None
        wanted, moved = int(self.pieces.row_end[-1]), int(self._moved.sum())
        landed = f"{moved:,} of {wanted:,} bytes landed"
        if closed:
            status, self.reason = Status.FAILED, f"{closed}; {landed}"
        elif self.failure:
            status, self.reason = Status.FAILED, f"{self.failure}; {landed}"
        else:
            status = Status.DONE if moved == wanted else Status.STOPPED
        self.total_ns = time.perf_counter_ns() - self._started_ns
        self.status = status
