"""Bytes from one worker to another, in order.

A message lies in the receiver's inbox, on the receiver's lease: so it is there even if the sender has left meanwhile.
Who has received it deletes it and writes the number into the sender's inbox, in one transaction; a sender is at most
``WINDOW`` small messages ahead of these receipts, and waits for that of a large one, to delete its chunks.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trunkline.clock import Deadline
from trunkline.coordination.chunks import read_chunks, write_chunks
from trunkline.coordination.record import INLINE_SIZE, MAX_CONTENT_SIZE, Parcel, encode_parcel
from trunkline.errors import ConfigurationError, DeadlineError, GroupError
from trunkline.store.contract import Delete, Put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trunkline.coordination.board import Board
    from trunkline.coordination.link import Found, Link

WINDOW = 64
"""Messages that one worker may send to another before the first is received."""

_CALL = "message"


class Mailbox:
    """The messages of one worker. Any thread; to or from one other worker, one at a time.

    Args:
        link: The way to the others.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()  # guards the locks; the numbers belong to who holds the pair's lock
        self._locks: dict[tuple[str, int], threading.Lock] = {}
        self._sent: dict[int, int] = {}
        self._received: dict[int, int] = {}
        self._unconfirmed: dict[int, bytes] = {}  # read, and perhaps deleted, by a call that failed

    def send(self, rank: int, data: bytes, deadline: Deadline) -> None:
        """Send bytes to a worker.

        Raises:
            ConfigurationError: They are over 64 MiB.
            DeadlineError: It does not receive.
            GroupError: The run ended, or that worker left.
            StoreError: The store failed.
        """
        if len(data) > MAX_CONTENT_SIZE:
            raise ConfigurationError(
                f"send to rank {rank}: {len(data)} bytes; at most {MAX_CONTENT_SIZE} can be sent",
                size=len(data),
                limit=MAX_CONTENT_SIZE,
            )
        link = self._link
        with self._turn("send to", rank, deadline):
            number = self._sent.get(rank, 0)
            self._wait_for_receipt(rank, number - WINDOW, deadline)
            lease = link.board.members[rank]
            is_large = len(data) > INLINE_SIZE
            chunks = link.key.message_chunks(link.rank, rank)
            if not self._is_received(rank, number):  # by a call that failed afterwards
                if is_large:
                    write_chunks(link, f"{chunks}{number}/", data, deadline, lease=lease, peer=rank)
                parcel = Parcel(number, _CALL, size=len(data)) if is_large else Parcel(number, _CALL, data)
                put = Put(link.key.message(rank, link.rank, number), encode_parcel(parcel), lease)
                is_written = link.write((put,), deadline, peer=rank)
                if is_large or not is_written:  # if that worker has gone the watch tells how
                    self._wait_for_receipt(rank, number, deadline)
            if is_large:
                link.write((Delete(chunks, prefix=True),), deadline)
            self._sent[rank] = number + 1

    def receive(self, rank: int, deadline: Deadline) -> bytes:
        """Return the next bytes that a worker sent.

        Raises:
            DeadlineError: It did not send.
            MetadataDecodeError: Another program has been at the keys.
            GroupError: The run ended, or that worker left.
            StoreError: The store failed.
        """
        link = self._link
        with self._turn("recv from", rank, deadline):
            number = self._received.get(rank, 0)
            data = self._unconfirmed.get(rank)
            if data is None:
                data = self._unconfirmed[rank] = self._read(rank, number, deadline)
            spent = Delete(link.key.message(link.rank, rank, number))
            receipt = encode_parcel(Parcel(number, _CALL))
            put = Put(link.key.receipt(rank, link.rank), receipt, link.board.members[rank])
            if not link.write((spent, put), deadline, peer=rank):
                link.write((spent,), deadline)  # the sender has gone
            self._received[rank] = number + 1
            del self._unconfirmed[rank]
            return data

    def _read(self, rank: int, number: int, deadline: Deadline) -> bytes:
        parcel = self._next(rank, number, deadline)
        if not parcel.size:
            return parcel.content
        link = self._link
        data = read_chunks(link, f"{link.key.message_chunks(rank, link.rank)}{number}/", parcel.size, deadline)
        if data is None:  # they hang on our own lease
            link.wait(lambda board: board.check((rank,)), deadline)
            raise self._overdue("recv from", rank, deadline)
        return data

    def _next(self, rank: int, number: int, deadline: Deadline) -> Parcel:
        def look(board: Board) -> Parcel | None:
            found = board.message(rank, number)
            if found is None:
                board.check((rank,))
            return found

        found = self._wait(look, deadline)
        if found is None:
            raise self._overdue("recv from", rank, deadline)
        return found

    def _is_received(self, rank: int, number: int) -> bool:
        """Return whether a worker is known to have received a message."""
        now = Deadline(0)
        return self._link.wait(lambda board: board.receipts.get(rank, -1) >= number or None, now) is not None

    def _wait_for_receipt(self, rank: int, number: int, deadline: Deadline) -> None:
        """Wait until a worker has received a message."""

        def look(board: Board) -> bool | None:
            if number < 0 or board.receipts.get(rank, -1) >= number:
                return True
            board.check((rank,))
            return None

        if self._wait(look, deadline) is None:
            raise self._overdue("send to", rank, deadline)

    def _wait(self, look: Callable[[Board], Found | None], deadline: Deadline) -> Found | None:
        """Wait for something in the inbox; if the run ends, see whether it had come before.

        The watch of who is there may be ahead of the inbox's.
        """
        try:
            return self._link.wait(look, deadline)
        except GroupError:
            self._link.read_inbox(deadline)
            return self._link.wait(look, deadline)

    def _overdue(self, what: str, rank: int, deadline: Deadline) -> DeadlineError:
        board = self._link.board
        group = self._link.key.group.name
        state = "it has not received what was sent" if what == "send to" else "nothing came"
        outage = f" The store can't be reached: {board.outage}." if board.outage else ""
        return DeadlineError(
            f"{what} rank {rank} ({board.place(rank)}) of group {group!r} at {self._link.store.url}: after "
            f"{deadline.elapsed:.1f} s {state}.{outage} Give it a longer timeout, or make the same "
            "call again to go on waiting",
            group=group,
            ranks=(rank,),
            elapsed=deadline.elapsed,
        )

    @contextmanager
    def _turn(self, what: str, rank: int, deadline: Deadline) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault((what, rank), threading.Lock())
        remaining = deadline.remaining()
        if not lock.acquire(timeout=-1 if remaining is None else remaining):
            raise DeadlineError(
                f"{what} rank {rank}: another thread of this worker was at it for {deadline.elapsed:.1f} s",
                ranks=(rank,),
                elapsed=deadline.elapsed,
            )
        try:
            yield
        finally:
            lock.release()
