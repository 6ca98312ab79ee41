"""How workers find a run and their seats in it.

Theory of operation. The first worker founds the run: it writes the run's record, with a token that no other run ever
has, and takes a seat, in one transaction. The others take seats of that run, each by a transaction that holds only
while the record is as they read it. When all seats are taken the founder writes the members' leases into the record.
That one write is the beginning for all of them, and shuts the run.

Everything hangs on the leases of its workers, the record on the founder's. Until the run has begun, a worker that dies
only frees its seat. If it was the founder, the record goes, and those who had seats begin again. A newcomer that finds
a run it can't join waits for the record to go. Workers that are provably gone (their processes ran on this machine and
ended) are not waited for: their leases are revoked.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import msgspec

from trunkline.clock import Clock, Deadline
from trunkline.coordination.key import GroupKey, RunKey, parse_number
from trunkline.coordination.link import Link
from trunkline.coordination.record import RunRecord, SeatRecord, decode_run, decode_seat, encode_record
from trunkline.errors import DeadlineError, GroupFullError, GroupSizeError, SeatLostError, StoreRequestError
from trunkline.process import is_gone, local_process
from trunkline.store.contract import (
    NO_LEASE,
    Changed,
    Delete,
    Get,
    Interrupted,
    KeyHasLease,
    KeyHasRevision,
    KeyIsAbsent,
    Put,
    Snapshot,
    Transaction,
)

if TYPE_CHECKING:
    from trunkline.coordination.board import Board
    from trunkline.store.contract import Entry, Lease, Store, TransactionResult, WatchEvent

_log = logging.getLogger(__name__)

EXPIRY_DELAY = 2.0
"""Seconds that a store may take to delete the keys of a lease that ran out."""


@dataclass(frozen=True, slots=True)
class _Sight:
    """A run as it was at one revision."""

    run: Entry
    record: RunRecord
    key: RunKey
    seats: dict[int, Entry]
    snapshot: Snapshot

    def rank_of(self, lease: int) -> int | None:
        """Return whose seat hangs on a lease: also if the answer to taking it was lost."""
        return next((rank for rank, seat in self.seats.items() if seat.lease == lease), None)

    def free(self, wanted: int | None) -> int | None:
        """Return the lowest free rank, or the one that is wanted; None if it is taken."""
        ranks = range(self.record.size) if wanted is None else (wanted,)
        return next((rank for rank in ranks if rank not in self.seats), None)


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """A worker that looks for its run.

    Attributes:
        store: Where.
        group: The group's keys.
        size: How many workers it has.
        rank: The rank to have; None for the lowest that is free.
        lease: What the worker's keys will hang on.
        clock: Measures waiting.
        deadline: When to give up.
    """

    store: Store
    group: GroupKey
    size: int
    rank: int | None
    lease: Lease
    clock: Clock
    deadline: Deadline

    def join(self) -> Link:
        """Take a seat and wait until all are taken.

        Raises:
            GroupFullError: Other workers had the seats until the deadline.
            GroupSizeError: A run of another size lives.
            DeadlineError: Workers are missing.
            SeatLostError: The lease is gone.
            GroupError: A worker died or gave up as the run began.
            MetadataDecodeError: Another program has been at the keys.
            StoreError: The store failed.
        """
        while True:
            key, rank, snapshot = self._sit()
            link = Link(self.store, key, rank, self.lease, snapshot, self.clock)
            try:
                if self._wait_for_others(link):
                    return link
            except BaseException:
                link.close()
                raise
            link.close()
            self._transact(
                Transaction((KeyHasLease(key.seat(rank), self.lease.id),), (Delete(key.seat(rank)),)),
            )

    def _sit(self) -> tuple[RunKey, int, Snapshot]:
        """Take a seat; return which, and all that there was at that revision."""
        while True:
            sight = self._look(self._found())
            if sight is None:
                continue
            rank = sight.rank_of(self.lease.id)
            if rank is not None:
                return sight.key, rank, sight.snapshot
            if self._revoke_dead(sight):
                continue
            rank = sight.free(self.rank)
            if sight.record.members or sight.record.size != self.size or rank is None:
                self._wait_for_change(sight)
                continue
            sight = self._look(self._sit_beside(sight, rank))
            rank = None if sight is None else sight.rank_of(self.lease.id)
            if sight is not None and rank is not None:
                return sight.key, rank, sight.snapshot

    def _found(self) -> TransactionResult:
        """Found a run if there is none; either way read what there is."""
        run = RunRecord(secrets.token_hex(16), self.size, self.lease.id)
        return self._transact(
            Transaction(
                (KeyIsAbsent(self.group.run),),
                (
                    Put(self.group.run, encode_record(run), self.lease.id),
                    self._seat(self.group.of_run(run.token), self.rank or 0),
                    self._everything,
                ),
                (self._everything,),
            )
        )

    def _sit_beside(self, sight: _Sight, rank: int) -> TransactionResult:
        """Take a free seat of another worker's run, unless that has changed; either way read what there is."""
        return self._transact(
            Transaction(
                (KeyHasRevision(self.group.run, sight.run.mod_revision), KeyIsAbsent(sight.key.seat(rank))),
                (self._seat(sight.key, rank), self._everything),
                (self._everything,),
            )
        )

    def _look(self, result: TransactionResult) -> _Sight | None:
        """Return what was read; None if there is no run."""
        entries = {entry.key: entry for entry in result.reads[0]}
        run = entries.get(self.group.run)
        if run is None:
            return None
        record = decode_run(run.key, run.value)
        key = self.group.of_run(record.token)
        seats: dict[int, Entry] = {}
        for entry in result.reads[0]:
            rank = parse_number(entry.key.removeprefix(key.seats))
            if rank is not None:
                seats[rank] = entry
        return _Sight(run, record, key, seats, Snapshot(result.reads[0], result.revision))

    def _revoke_dead(self, sight: _Sight) -> bool:
        """Revoke the leases of workers that are provably gone; return whether there were any."""
        leased = [seat for seat in sight.seats.values() if seat.lease != NO_LEASE]  # all that workers write
        dead = [seat for seat in leased if is_gone(decode_seat(seat.key, seat.value).process)]
        for seat in dead:
            _log.info("%s: its process has ended: its lease is revoked", seat.key)
            self.store.revoke(seat.lease, timeout=self.deadline.remaining())
        return bool(dead)

    def _wait_for_change(self, sight: _Sight) -> None:
        """Return when a run that can't be joined must be looked at again; raise if it stays as it is."""
        run, record, key = sight.run, sight.record, sight.key
        holders = {rank: decode_seat(seat.key, seat.value) for rank, seat in sorted(sight.seats.items())}
        patience = self.deadline
        if record.size != self.size:
            # If it is still there once its lease must have ended, its founder lives.
            left = self.store.time_to_live(run.lease, timeout=self.deadline.remaining()) or 0.0
            patience = Deadline(self.deadline.remaining(left + EXPIRY_DELAY), self.clock)
        outage = ""
        with self.store.watch(run.key, prefix=True, after=sight.snapshot.revision) as watch:
            while (event := watch.next(patience.remaining())) is not None:
                if isinstance(event, Interrupted):
                    outage = event.reason
                elif outage or isinstance(event, Snapshot) or _concerns(event, run.key, key):
                    return
        self._refuse(record, holders, outage)

    def _refuse(self, record: RunRecord, holders: dict[int, SeatRecord], outage: str) -> NoReturn:
        elapsed = self.deadline.elapsed
        who = ", ".join(f"rank {rank}: {seat.place}" for rank, seat in list(holders.items())[:8]) or "nobody"
        where = f"group {self.group.name!r} at {self.store.url}"
        context = {"group": self.group.name, "size": self.size, "elapsed": elapsed, "url": self.store.url}
        state = f" (the store can't be reached: {outage})" if outage else ""
        if record.size != self.size:
            raise GroupSizeError(
                f"{where}: this worker was started for {self.size} workers, but there is a run of {record.size} ({who})"
                f"; it is still there after {elapsed:.1f} s{state}. Start all workers with the same size, or this one "
                "in another group",
                found=record.size,
                **context,
            )
        what = "all its seats are" if self.rank is None or record.members else f"rank {self.rank} is"
        raise GroupFullError(
            f"{where}: {what} taken by other workers ({who}); waited {elapsed:.1f} s for them to go{state}. It is a "
            f"group of {self.size}: start no more than that, end the other run, or use another group",
            **context,
        )

    def _wait_for_others(self, link: Link) -> bool:
        """Wait until the run begins; return whether it did with this worker."""
        is_marked = False

        def look(board: Board) -> str | None:
            board.check(())
            if board.members:
                return "begun"
            if board.is_dissolved:
                return "dissolved"
            is_founder = board.run is not None and board.run.founder == self.lease.id
            is_complete = all(rank in board.seats for rank in range(self.size))
            return "complete" if is_founder and not is_marked and is_complete else None

        while True:
            state = link.wait(look, self.deadline)
            if state is None:
                self._report_missing(link)
            if state == "complete":
                self._begin(link)
                is_marked = True
                continue
            return state == "begun"

    def _begin(self, link: Link) -> None:
        """Write who is in the run. If somebody has vanished meanwhile everybody will see that."""
        run = link.board.run
        assert run is not None
        leases = tuple(link.board.seats[rank].lease for rank in range(self.size))
        self._transact(
            Transaction(
                (KeyHasRevision(self.group.run, link.board.run_revision),),
                (Put(self.group.run, encode_record(msgspec.structs.replace(run, members=leases)), self.lease.id),),
            )
        )

    def _report_missing(self, link: Link) -> NoReturn:
        present = [rank for rank in range(self.size) if rank in link.board.seats]
        missing = [rank for rank in range(self.size) if rank not in link.board.seats]
        elapsed = self.deadline.elapsed
        state = f" The store can't be reached: {link.board.outage}." if link.board.outage else ""
        raise DeadlineError(
            f"group {self.group.name!r} at {self.store.url}: {len(missing)} of {self.size} workers did not come within "
            f"{elapsed:.1f} s (missing: {_ranks(missing)}; here: {_ranks(present)}).{state} Start them with the same "
            "group, size and store, or give them a longer timeout",
            group=self.group.name,
            ranks=tuple(missing),
            present=tuple(present),
            elapsed=elapsed,
            url=self.store.url,
        )

    @property
    def _everything(self) -> Get:
        return Get(self.group.run, prefix=True)

    def _seat(self, key: RunKey, rank: int) -> Put:
        return Put(key.seat(rank), encode_record(SeatRecord(local_process())), self.lease.id)

    def _transact(self, transaction: Transaction) -> TransactionResult:
        try:
            return self.store.transact(transaction, timeout=self.deadline.remaining())
        except StoreRequestError as error:
            if self.store.time_to_live(self.lease.id, timeout=self.deadline.remaining()) is not None:
                raise
            raise SeatLostError(
                f"group {self.group.name!r} at {self.store.url}: this worker's lease ran out or was revoked in the "
                f"{self.deadline.elapsed:.1f} s that it waited for a seat. Join again",
                group=self.group.name,
                url=self.store.url,
            ) from error


def _concerns(event: WatchEvent, run: str, key: RunKey) -> bool:
    """Return whether an event may have made room in a run, or ended it."""
    assert isinstance(event, Changed)
    return any(entry.key == run for entry in event.put) or any(
        name == run or name.startswith(key.seats) for name in event.deleted
    )


def _ranks(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:16]))
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {shown}{' …' if len(ranks) > 16 else ''}" if ranks else "nobody"
