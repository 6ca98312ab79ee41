"""Collectives: all workers of a set come, then all go on.

Theory of operation. The lowest rank of the set is its *hub*. The others each write their arrival, with what they bring,
into the hub's inbox. When all have come the hub works out the result and writes one key, the *release*, which everybody
watches. So each collective takes two writes one after the other, and 2 × N keys pass through watches; had everybody
watched everybody's arrivals it would be one write, but N × N keys.

Arrivals and releases carry the number of the collective, counted for each set. A worker writes the next arrival only
after it has seen the release, and the hub the next release only after all have arrived again, so each may write over
the one before: nothing has to be deleted and nothing grows. A collective that ran out of time keeps its number: the
same call, made again, goes on with it.

A result too large for the release lies in chunks, and then the workers meet once more when they have read it, so that
the hub may delete it, or leave.

What a call has reached is kept until it is done: the store may have failed it anywhere.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trunkline.coordination.chunks import read_chunks, write_chunks
from trunkline.coordination.key import mask_of, parse_number
from trunkline.coordination.record import INLINE_SIZE, Parcel, decode_parcel, encode_parcel
from trunkline.errors import CollectiveMismatchError, ConfigurationError, DeadlineError, MetadataDecodeError, StoreError
from trunkline.store.contract import Delete, Put

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from trunkline.clock import Deadline
    from trunkline.coordination.board import Board
    from trunkline.coordination.link import Link

MAX_ERROR = 2000
"""Characters of why a collective failed."""

_REPORT_TIMEOUT = 1.0  # seconds to find out who was missing, once it is too late


@dataclass(frozen=True, slots=True)
class Call:
    """What the workers do together.

    Attributes:
        name: The same for all of them.
        combine: Makes the encoded result of what each rank brought.
        readers: The ranks that want the result; None for all.
    """

    name: str
    combine: Callable[[Mapping[int, bytes]], bytes]
    readers: Collection[int] | None = None


@dataclass(slots=True)
class _State:
    """How far the latest collective of a set of workers has come.

    Attributes:
        made: The release that this worker made as the hub, or the one before.
        release: How it ended.
        result: What that gives this worker.
        has_chunks: Whether it has written any.
    """

    made: Parcel | None = None
    release: Parcel | None = None
    result: bytes | None = None
    has_chunks: bool = False


_READ = Call("reading a large value", lambda _: b"")


class Collectives:
    """The collectives of one worker. Any thread; of one set of workers, one at a time.

    Args:
        link: The way to the others.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()  # guards the first below; the rest belongs to who holds the set's lock
        self._locks: dict[int, threading.Lock] = {}
        self._numbers: dict[int, int] = {}
        self._states: dict[int, _State] = {}

    def meet(self, call: Call, content: bytes, ranks: Sequence[int], deadline: Deadline) -> bytes:
        """Bring something to a collective and wait for its result, which is empty for who does not want it.

        Args:
            call: What is done.
            content: What this worker brings, encoded.
            ranks: The workers that take part, in order; this one is among them.
            deadline: When to give up.

        Raises:
            DeadlineError: Workers did not come.
            CollectiveMismatchError: They made different calls, or brought what does not go together.
            GroupError: The run ended.
            StoreError: The store failed.
        """
        if len(ranks) == 1:
            self._link.write((), deadline)  # who has lost its seat must not go on as if nothing had been
            return call.combine({self._link.rank: content})
        mask = mask_of(ranks)
        with self._turn(mask, call, deadline):
            number = self._numbers.get(mask, 0)
            state = self._states.setdefault(mask, _State())
            if state.release is None:
                state.release = self._round(mask, number, call, content, ranks, deadline)
            release = state.release
            if release.size:
                if state.result is None:
                    is_reader = call.readers is None or self._link.rank in call.readers
                    state.result = self._read(mask, ranks[0], release, deadline) if is_reader else b""
                number += 1
                self._round(mask, number, _READ, b"", ranks, deadline)
            if state.has_chunks:
                chunks = self._link.key.collective_chunks(self._link.rank, mask)
                self._link.write((Delete(chunks, prefix=True),), deadline)
            result = release.content if state.result is None else state.result
            self._numbers[mask] = number + 1
            self._states[mask] = _State(made=state.made)
        if release.error:
            raise CollectiveMismatchError(release.error, group=self._link.key.group.name, ranks=tuple(ranks))
        if release.call != call.name:  # of an earlier call of ours that ran out of time: its result is not this one's
            raise self._mismatch({self._link.rank: call.name, ranks[0]: release.call})
        return result

    def _round(
        self, mask: int, number: int, call: Call, content: bytes, ranks: Sequence[int], deadline: Deadline
    ) -> Parcel:
        if ranks[0] == self._link.rank:
            return self._lead(mask, number, call, content, ranks, deadline)
        link, hub = self._link, ranks[0]
        link.write(
            (
                Put(
                    link.key.arrival(hub, mask, link.rank),
                    encode_parcel(self._parcel(mask, number, call, content, deadline)),
                    link.lease.id,
                ),
            ),
            deadline,
        )

        def look(board: Board) -> Parcel | None:
            found = board.release(mask, hub, number)
            if found is None:
                board.check(ranks)
            return found

        release = link.wait(look, deadline)
        if release is None:
            raise self._overdue(call, self._missing_at(hub, mask, number, ranks), ranks, deadline)
        return release

    def _lead(
        self, mask: int, number: int, call: Call, content: bytes, ranks: Sequence[int], deadline: Deadline
    ) -> Parcel:
        """Do the hub's part: take the arrivals and write the release."""
        link = self._link
        state = self._states[mask]
        release = state.made
        if release is None or release.number != number:  # else it was made by a call that failed
            arrivals = self._gather(mask, number, call, ranks, deadline)
            release = state.made = self._make_release(mask, number, call, content, arrivals, ranks, deadline)
        link.write((Put(link.key.release(mask), encode_parcel(release), link.lease.id),), deadline)
        return release

    def _gather(
        self, mask: int, number: int, call: Call, ranks: Sequence[int], deadline: Deadline
    ) -> dict[int, Parcel]:
        """Wait until all others have come; return what they bring."""
        missing = {rank for rank in ranks if rank != self._link.rank}
        arrivals: dict[int, Parcel] = {}

        def look(board: Board) -> bool | None:
            for rank in sorted(missing):
                found = board.arrival(mask, rank, number)
                if found is not None:
                    arrivals[rank] = found
                    missing.discard(rank)
            if missing:
                board.check(ranks)
                return None
            return True

        if self._link.wait(look, deadline) is None:
            raise self._overdue(call, sorted(missing), ranks, deadline)
        return arrivals

    def _make_release(
        self,
        mask: int,
        number: int,
        call: Call,
        content: bytes,
        arrivals: Mapping[int, Parcel],
        ranks: Sequence[int],
        deadline: Deadline,
    ) -> Parcel:
        calls = {self._link.rank: call.name, **{rank: parcel.call for rank, parcel in arrivals.items()}}
        if len(set(calls.values())) > 1:
            return Parcel(number, call.name, error=str(self._mismatch(calls)))
        contents = {self._link.rank: content}
        for rank, parcel in arrivals.items():
            contents[rank] = self._read(mask, rank, parcel, deadline)
        try:
            result = call.combine({rank: contents[rank] for rank in ranks})
        except (ConfigurationError, MetadataDecodeError) as error:
            return Parcel(number, call.name, error=f"{call.name}: {error}"[:MAX_ERROR])
        return self._parcel(mask, number, call, result, deadline)

    def _parcel(self, mask: int, number: int, call: Call, content: bytes, deadline: Deadline) -> Parcel:
        if len(content) <= INLINE_SIZE:
            return Parcel(number, call.name, content)
        self._states[mask].has_chunks = True
        prefix = f"{self._link.key.collective_chunks(self._link.rank, mask)}{number}/"
        write_chunks(self._link, prefix, content, deadline)
        return Parcel(number, call.name, size=len(content))

    def _read(self, mask: int, writer: int, parcel: Parcel, deadline: Deadline) -> bytes:
        """Return what a parcel carries, wherever it lies."""
        if not parcel.size:
            return parcel.content
        prefix = f"{self._link.key.collective_chunks(writer, mask)}{parcel.number}/"
        found = read_chunks(self._link, prefix, parcel.size, deadline)
        if found is None:  # its writer has vanished: the watch will tell how
            self._link.wait(lambda board: board.check((writer,)), deadline)
            raise self._overdue(_READ, [writer], [writer], deadline)
        return found

    def _missing_at(self, hub: int, mask: int, number: int, ranks: Sequence[int]) -> list[int]:
        """Return who has not come, as far as the hub's inbox shows; the hub itself if all others have."""
        if self._link.board.outage:
            return []  # asking would only make the call later still
        key = self._link.key
        prefix = key.arrival(hub, mask, 0).removesuffix("0")
        arrived = {hub}
        with suppress(StoreError, MetadataDecodeError):
            for entry in self._link.store.list(prefix, timeout=_REPORT_TIMEOUT).entries:
                sender = parse_number(entry.key.removeprefix(prefix))
                if sender is not None and decode_parcel(entry.key, entry.value).number >= number:
                    arrived.add(sender)
            return [rank for rank in ranks if rank not in arrived] or [hub]
        return []

    def _overdue(self, call: Call, missing: Sequence[int], ranks: Sequence[int], deadline: Deadline) -> DeadlineError:
        board = self._link.board
        group = self._link.key.group.name
        who = ", ".join(f"{rank} ({board.place(rank)})" for rank in missing) or "(who can't be found out)"
        outage = f" The store can't be reached: {board.outage}." if board.outage else ""
        return DeadlineError(
            f"{call.name} of {len(ranks)} workers of group {group!r} at {self._link.store.url}: after "
            f"{deadline.elapsed:.1f} s still waiting for {'rank' if len(missing) == 1 else 'ranks'} {who}.{outage} "
            "Give it a longer timeout, or make the same call again to go on waiting",
            group=group,
            ranks=tuple(missing),
            elapsed=deadline.elapsed,
        )

    def _mismatch(self, calls: Mapping[int, str]) -> CollectiveMismatchError:
        group = self._link.key.group.name
        by_call: dict[str, list[int]] = {}
        for rank, name in sorted(calls.items()):
            by_call.setdefault(name, []).append(rank)
        told = "; ".join(f"{name}: {', '.join(map(str, ranks[:8]))}" for name, ranks in list(by_call.items())[:8])
        return CollectiveMismatchError(
            f"the workers of group {group!r} made different calls ({told})"[:MAX_ERROR], calls=by_call, group=group
        )

    @contextmanager
    def _turn(self, mask: int, call: Call, deadline: Deadline) -> Iterator[None]:
        """Hold the lock of a set of workers."""
        with self._lock:
            lock = self._locks.setdefault(mask, threading.Lock())
        remaining = deadline.remaining()
        if not lock.acquire(timeout=-1 if remaining is None else remaining):
            raise DeadlineError(
                f"{call.name}: another thread of this worker was in a collective of the same workers for "
                f"{deadline.elapsed:.1f} s",
                elapsed=deadline.elapsed,
            )
        try:
            yield
        finally:
            lock.release()
