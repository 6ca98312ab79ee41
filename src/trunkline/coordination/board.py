"""What one worker knows of its run, from the two watches it reads. No I/O; guarded by the link's lock.

Theory of operation. The run's record names the leases of all members once they are there. From then on what counts is
who vanishes: a seat whose last word was ``left`` was given up in order, any other seat that goes was a worker that died
or was cut off. What came first, somebody who gave up or somebody who died, is what the run ended of; that does not
change any more, except that more workers may be found to have died.

Keys that no worker writes are passed over. What lies under a key that workers do write and is not what they write there
ends the run as well, with an error that names the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trunkline.coordination.key import parse_mask, parse_number
from trunkline.coordination.record import (
    MAX_REASON,
    Parcel,
    RunRecord,
    SeatRecord,
    decode_parcel,
    decode_run,
    decode_seat,
)
from trunkline.errors import (
    CollectiveMismatchError,
    GroupFailedError,
    MetadataDecodeError,
    SeatLostError,
    WorkerLeftError,
    WorkerLostError,
)
from trunkline.store.contract import Changed, Entry, Interrupted, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trunkline.coordination.key import RunKey
    from trunkline.errors import TrunklineError
    from trunkline.store.contract import WatchEvent

MAX_KEYS = 131_072
"""Keys that are kept of an inbox, which may hold 64 messages of each of 1,023 others; and of releases."""


class Seat(NamedTuple):
    """A seat that is taken."""

    lease: int
    record: SeatRecord


class _Delivery(NamedTuple):
    lease: int
    parcel: Parcel


class Board:
    """The state of a run as one worker sees it.

    Attributes:
        run: The run's record; None until it was seen.
        run_revision: The revision of that record.
        seats: Who is there, by rank.
        members: The workers' leases by rank; empty until all were there.
        is_dissolved: Whether the run ended before all were there.
        receipts: By rank, the number of the latest message that a worker received from this one.
        outage: Why the store can't be reached; empty while it can.

    Args:
        key: The run's keys.
        rank: This worker's.
        lease: What its keys hang on.
    """

    def __init__(self, key: RunKey, rank: int, lease: int) -> None:
        self.key = key
        self.rank = rank
        self.lease = lease
        self.run: RunRecord | None = None
        self.run_revision = 0
        self.seats: dict[int, Seat] = {}
        self.members: tuple[int, ...] = ()
        self.is_dissolved = False
        self.receipts: dict[int, int] = {}
        self.outage = ""
        self._places: dict[int, str] = {}
        self._left: set[int] = set()
        self._lost: set[int] = set()
        self._failure: tuple[int, str] | None = None
        self._is_seatless = False
        self._flaw: TrunklineError | None = None
        self._arrivals: dict[tuple[int, int], _Delivery] = {}
        self._releases: dict[int, _Delivery] = {}
        self._messages: dict[tuple[int, int], _Delivery] = {}

    def take_run(self, event: WatchEvent) -> None:
        """Take in what the watch of the run brought."""
        if isinstance(event, Interrupted):
            self.outage = event.reason
            return
        self.outage = ""
        entries = event.put if isinstance(event, Changed) else event.entries
        # What comes together in a snapshot need not be in order: who is there counts before who ought to be.
        for entry in sorted(entries, key=lambda entry: not entry.key.startswith(self.key.seats)):
            self._guard(self._put_of_run, entry)
        if isinstance(event, Changed):
            for key in event.deleted:
                self._delete_of_run(key)
            return
        present = {entry.key for entry in entries}
        for rank in [rank for rank in self.seats if self.key.seat(rank) not in present]:
            self._vacate(rank)
        if self.key.group.run not in present:
            self._dissolve()

    def take_inbox(self, event: WatchEvent) -> None:
        """Take in what the watch of the inbox brought."""
        if isinstance(event, Interrupted):
            return
        if isinstance(event, Snapshot):
            self._arrivals.clear()
            self._messages.clear()
        for entry in event.put if isinstance(event, Changed) else event.entries:
            self._guard(self._put_of_inbox, entry)
        for key in event.deleted if isinstance(event, Changed) else ():
            kind, _, first, second = self._parts(key)
            if kind == "message" and first is not None and second is not None:
                self._messages.pop((first, second), None)

    def check(self, needed: Iterable[int]) -> None:
        """Raise if the run has ended, or one of some workers has left.

        Raises:
            GroupFailedError: A worker gave up.
            WorkerLostError: Workers died.
            WorkerLeftError: One of those left.
            SeatLostError: This worker's lease is gone.
            MetadataDecodeError: Somebody else has been at the keys.
        """
        group = self.key.group.name
        if self._is_seatless:
            raise self.seat_lost()
        if self._flaw is not None:
            raise self._flaw
        if self._failure is not None:
            rank, reason = self._failure
            raise GroupFailedError(
                f"worker {self._name(rank)} of group {group!r} gave up: {reason}", rank=rank, reason=reason, group=group
            )
        if self._lost:
            lost = tuple(sorted(self._lost))
            raise WorkerLostError(
                f"group {group!r} lost {_workers([self._name(rank) for rank in lost])}: killed, or cut off from the "
                "store for longer than its TTL. Start all workers again",
                ranks=lost,
                group=group,
            )
        left = tuple(sorted(self._left & set(needed)))
        if left:
            raise WorkerLeftError(
                f"{_workers([self._name(rank) for rank in left])} left group {group!r} in order, but is needed here: "
                "the workers do not make the same calls",
                ranks=left,
                group=group,
            )

    def seat_lost(self) -> SeatLostError:
        """Return the error that says that this worker's keys are gone."""
        group = self.key.group.name
        return SeatLostError(
            f"worker {self.rank} of group {group!r} lost its seat: its lease ran out or was revoked, and the others "
            "count it as dead. Join again with them",
            group=group,
            rank=self.rank,
        )

    def lose_seat(self) -> None:
        """Note that this worker's keys are gone."""
        self._is_seatless = True

    @property
    def is_failed(self) -> bool:
        """Whether the run has ended badly."""
        return self._is_seatless or self._failure is not None or bool(self._lost) or self._flaw is not None

    def fail(self, reason: str) -> None:
        """Note that this worker gave up."""
        if not self.is_failed:
            self._failure = self.rank, reason

    def arrival(self, mask: int, rank: int, number: int) -> Parcel | None:
        """Return what a worker brought to a collective; None if it has not come."""
        return self._of_number(self._arrivals.get((mask, rank)), rank, number)

    def release(self, mask: int, hub: int, number: int) -> Parcel | None:
        """Return how a collective ended; None if it has not."""
        return self._of_number(self._releases.get(mask), hub, number)

    def message(self, sender: int, number: int) -> Parcel | None:
        """Return a message; None if it has not come."""
        found = self._messages.get((sender, number))
        return None if found is None else found.parcel

    def place(self, rank: int) -> str:
        """Return where a worker lives, as far as is known."""
        return self._places.get(rank, "")

    def _of_number(self, found: _Delivery | None, rank: int, number: int) -> Parcel | None:
        if found is None or not self.members or found.lease != self.members[rank] or found.parcel.number < number:
            return None
        if found.parcel.number > number:
            raise CollectiveMismatchError(
                f"worker {rank} of group {self.key.group.name!r} is at collective {found.parcel.number} "
                f"({found.parcel.call}) of these workers, this one at {number}: they do not make the same calls",
                rank=rank,
                group=self.key.group.name,
            )
        return found.parcel

    def _guard(self, put: Callable[[Entry], None], entry: Entry) -> None:
        try:
            put(entry)
        except MetadataDecodeError as error:
            self._flaw = self._flaw or error

    def _put_of_run(self, entry: Entry) -> None:
        if entry.key == self.key.group.run:
            self._take_record(entry)
            return
        rest = entry.key.removeprefix(self.key.prefix)
        kind, _, text = rest.partition("/")
        if rest == entry.key:
            return  # of another run
        number = parse_mask(text) if kind == "release" else parse_number(text)
        if number is None:
            return
        if kind == "release":
            if number >> self.rank & 1:
                self._releases[number] = _Delivery(entry.lease, decode_parcel(entry.key, entry.value))
                self._bound(len(self._releases), self.key.prefix)
        elif kind == "seat" and (not self.members or self._is_member(number, entry.lease)):
            self._take_seat(number, Seat(entry.lease, decode_seat(entry.key, entry.value)))
        elif kind == "failed" and self._is_member(number, entry.lease) and not self.is_failed:
            self._failure = number, entry.value[: 4 * MAX_REASON].decode(errors="replace")[:MAX_REASON]

    def _take_record(self, entry: Entry) -> None:
        if self.members or self.is_dissolved:
            return
        record = decode_run(entry.key, entry.value)
        if record.token != self.key.token:
            self._dissolve()
            return
        self.run, self.run_revision = record, entry.mod_revision
        if not record.members:
            return
        if not self.rank < record.size or record.members[self.rank] != self.lease:
            self.is_dissolved = True  # as far as we are concerned: the others began without us
            return
        self.members = record.members
        for rank, lease in enumerate(record.members):
            if rank not in self.seats or self.seats[rank].lease != lease:
                self._lose(rank)

    def _take_seat(self, rank: int, seat: Seat) -> None:
        self.seats[rank] = seat
        self._places[rank] = seat.record.place
        if seat.record.state == "left":
            self._left.add(rank)

    def _delete_of_run(self, key: str) -> None:
        if key == self.key.group.run:
            self._dissolve()
        elif key.startswith(self.key.seats):
            rank = parse_number(key.removeprefix(self.key.seats))
            if rank is not None and rank in self.seats:
                self._vacate(rank)

    def _vacate(self, rank: int) -> None:
        del self.seats[rank]
        if rank == self.rank:
            self.lose_seat()
        elif not self.members:
            self._left.discard(rank)
        elif rank not in self._left:
            self._lose(rank)

    def _lose(self, rank: int) -> None:
        if self._failure is None:
            self._lost.add(rank)

    def _dissolve(self) -> None:
        if not self.members:
            self.is_dissolved = True

    def _is_member(self, rank: int, lease: int) -> bool:
        return rank < len(self.members) and self.members[rank] == lease

    def _put_of_inbox(self, entry: Entry) -> None:
        kind, mask, first, second = self._parts(entry.key)
        if kind == "arrival" and mask is not None and first is not None:
            if mask & -mask == 1 << self.rank and mask >> first & 1:  # it has us for its lowest rank
                self._arrivals[mask, first] = _Delivery(entry.lease, decode_parcel(entry.key, entry.value))
        elif kind == "message" and first is not None and second is not None:
            self._messages[first, second] = _Delivery(entry.lease, decode_parcel(entry.key, entry.value))
        elif kind == "receipt" and first is not None:
            self.receipts[first] = decode_parcel(entry.key, entry.value).number
        self._bound(len(self._arrivals) + len(self._messages) + len(self.receipts), self.key.inbox(self.rank))

    def _bound(self, count: int, prefix: str) -> None:
        if count > MAX_KEYS:
            raise MetadataDecodeError(
                f"there are more than {MAX_KEYS} keys under {prefix}: another program writes there", key=prefix
            )

    def _parts(self, key: str) -> tuple[str, int | None, int | None, int | None]:
        """Return the kind of a key of the inbox, its mask, and its numbers."""
        kind, *texts = key.removeprefix(self.key.inbox(self.rank)).split("/")
        if kind == "arrival" and len(texts) == 2:
            return kind, parse_mask(texts[0]), parse_number(texts[1]), None
        if kind == "message" and len(texts) == 2:
            return kind, None, parse_number(texts[0]), parse_number(texts[1])
        if kind == "receipt" and len(texts) == 1:
            return kind, None, parse_number(texts[0]), None
        return "", None, None, None

    def _name(self, rank: int) -> str:
        place = self.place(rank)
        return f"{rank} ({place})" if place else str(rank)


def _workers(names: list[str]) -> str:
    return f"worker {names[0]}" if len(names) == 1 else f"workers {', '.join(names)}"
