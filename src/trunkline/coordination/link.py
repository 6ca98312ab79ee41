"""A worker's way to the others: its board, the two watches that feed it, and guarded writes.

No thread of its own: whoever waits reads the watches for all threads of this worker that wait. The two watches share
one event, so one thread can sleep on both.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from trunkline.coordination.board import Board
from trunkline.errors import ClosedError, StoreRequestError
from trunkline.store.contract import Get, KeyHasLease, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trunkline.clock import Clock, Deadline
    from trunkline.coordination.key import RunKey
    from trunkline.errors import SeatLostError
    from trunkline.store.contract import Lease, Operation, Snapshot, Store

Found = TypeVar("Found")


class Link:
    """Holds a seat of a run. Any thread may use it.

    Attributes:
        store: Where.
        key: The run's keys.
        rank: This worker's.
        lease: What its keys hang on; its owner closes it.
        board: What is known; look at it within :meth:`wait` only.

    Args:
        store: Where.
        key: The run's keys.
        rank: This worker's.
        lease: What its keys hang on.
        snapshot: What there was of the run when the seat was taken.
        clock: Measures waiting.
    """

    def __init__(self, store: Store, key: RunKey, rank: int, lease: Lease, snapshot: Snapshot, clock: Clock) -> None:
        self.store = store
        self.key = key
        self.rank = rank
        self.lease = lease
        self.board = Board(key, rank, lease.id)
        self.board.take_run(snapshot)
        self._clock = clock
        self._lock = threading.Lock()  # guards the board and the two below
        self._is_being_read = False
        self._news = threading.Event()  # replaced whenever the board may have changed
        self._wake = threading.Event()
        self._run = store.watch(key.group.run, prefix=True, after=snapshot.revision, wake=self._wake)
        self._inbox = store.watch(key.inbox(rank), prefix=True, after=snapshot.revision, wake=self._wake)

    def wait(self, ready: Callable[[Board], Found | None], deadline: Deadline) -> Found | None:
        """Wait until the board shows something; return it, or None once the deadline has passed.

        Args:
            ready: Looks at the board: returns what it shows, None to go on waiting, or raises.
            deadline: When to give up.

        Raises:
            ClosedError: The link was closed meanwhile.
            StoreAuthError: The right to watch is missing.
        """
        while True:
            is_over = deadline.has_passed
            with self._lock:
                is_reader = not self._is_being_read
                if is_reader:
                    self._wake.clear()  # before the look at the board: what changes it from now on sets it again
                found = ready(self.board)
                if found is not None or (is_over and not is_reader):
                    return found
                self._is_being_read = True
                news = self._news
            if not is_reader:
                self._clock.wait(news, deadline.remaining())
                continue
            try:
                is_fruitful = self._read()
                if is_over:  # what has come in time counts, though nobody had read it
                    with self._lock:
                        return ready(self.board)
                if not is_fruitful:
                    self._clock.wait(self._wake, deadline.remaining())
            finally:
                with self._lock:
                    self._is_being_read = False
                    self._tell()

    def check(self) -> None:
        """Raise what the board says if the run has ended."""
        with self._lock:
            self.board.check(())

    def change(self, change: Callable[[Board], None]) -> None:
        """Change the board, and wake those who wait."""
        with self._lock:
            change(self.board)
            self._tell()
            self._wake.set()

    def write(self, operations: Sequence[Operation], deadline: Deadline, *, peer: int | None = None) -> bool:
        """Write in one transaction if we have our seat, and the peer its own; return whether the peer had.

        Raises:
            SeatLostError: We have it no more.
            StoreError: The store failed.
        """
        seat = self.key.seat(self.rank)
        conditions = [KeyHasLease(seat, self.lease.id)]
        if peer is not None:
            conditions.append(KeyHasLease(self.key.seat(peer), self.board.members[peer]))
        try:
            result = self.store.transact(
                Transaction(tuple(conditions), tuple(operations), (Get(seat),)), timeout=deadline.remaining()
            )
        except StoreRequestError as error:  # a lease that has run out a moment ago, and its keys are there yet
            found, _ = self.store.get(seat, timeout=deadline.remaining())
            if found is None:
                raise self._seat_lost() from error
            raise
        if not result.succeeded and not result.reads[0]:
            raise self._seat_lost()
        return result.succeeded

    def read_inbox(self, deadline: Deadline) -> None:
        """Bring the board up to date with the inbox as it is now, ahead of the watch."""
        snapshot = self.store.list(self.key.inbox(self.rank), timeout=deadline.remaining())
        self.change(lambda board: board.take_inbox(snapshot))

    def close(self) -> None:
        """Close the watches; whoever waits gets a ClosedError. Idempotent."""
        self._run.close()
        self._inbox.close()
        self._wake.set()

    def _seat_lost(self) -> SeatLostError:
        """Note what a write found out ahead of the watch, for all threads."""
        self.change(lambda board: board.lose_seat())
        return self.board.seat_lost()

    def _read(self) -> bool:
        """Have the board take all events that are there; return whether there were any."""
        is_fruitful = False
        try:
            for watch, take in ((self._run, self.board.take_run), (self._inbox, self.board.take_inbox)):
                while (event := watch.next(0)) is not None:
                    is_fruitful = True
                    with self._lock:
                        take(event)
        except ClosedError as error:
            group = self.key.group.name
            raise ClosedError(f"group {group!r} was closed", group=group) from error
        return is_fruitful

    def _tell(self) -> None:
        news, self._news = self._news, threading.Event()
        news.set()
