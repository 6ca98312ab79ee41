"""A group: what a worker uses."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self

from trunkline.clock import DEFAULT, SYSTEM_CLOCK, Clock, Deadline, Timeout, UseDefault
from trunkline.config import Settings
from trunkline.coordination.collective import Call, Collectives
from trunkline.coordination.key import MAX_WORKERS, GroupKey
from trunkline.coordination.mailbox import Mailbox
from trunkline.coordination.record import (
    MAX_CONTENT_SIZE,
    MAX_REASON,
    SeatRecord,
    decode_number,
    decode_value,
    encode_record,
    encode_value,
    pack_list,
)
from trunkline.coordination.reduction import Reduction, check_number, reduce_numbers
from trunkline.coordination.rendezvous import Rendezvous
from trunkline.errors import ClosedError, ConfigurationError, ForkedError, NoStoreError, TrunklineError
from trunkline.process import local_process
from trunkline.store.contract import Put, Store
from trunkline.store.registry import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

_log = logging.getLogger(__name__)

DEFAULT_TTL = 10.0
"""Seconds within which the others know of a worker that was killed."""

DEFAULT_TIMEOUT = 60.0

CLOSE_TIMEOUT = 5.0
"""Seconds that leaving takes at most, by default."""

_EXPIRY = 1.0  # seconds that a store may take to notice that a lease has run out, and to tell

_MIN_TTL = 3.0
_MAX_TTL = 86_400.0


class Group:
    """Workers that act together: ``size`` processes, on any hosts, that opened a group of one name on one store.

    Opening waits until all of them are there. Then they have ranks from 0 on, and make the same calls in the same
    order: each call of :meth:`barrier`, :meth:`broadcast`, :meth:`reduce`, :meth:`gather` or :meth:`allgather` waits
    for all workers that take part. With ``ranks=`` a subset does so by itself, at the same time as others.

    Values are ints up to 64 bits, floats, text, bytes, None, and lists and dicts of these (tuples arrive as lists), at
    most 64 MiB encoded; up to 128 KiB they are fastest.

    A worker that dies ends every wait of all others with :class:`~trunkline.errors.WorkerLostError`, once its lease
    has run out. One that leaves in order does so only where it is needed. A call that ran out of time raises
    :class:`~trunkline.errors.DeadlineError`, which names who is missing, and may be made again.

    As a context manager it leaves at the end; if an exception ends the block, the others are told why (:meth:`fail`).
    Any thread may use it; while one is in a collective, another one's of the same workers waits. After a
    KeyboardInterrupt in one of its calls it can only be left. A forked child is no worker.

    Args:
        name: The group's. Runs of one name follow each other: what one leaves behind when it crashes is waited for
            until it has vanished.
        size: How many workers there are.
        store: A URL (``etcd://host:2379``), opened and closed here, or an open Store, which stays the caller's; by
            default what ``NIXL_ETCD_ENDPOINTS`` says.
        rank: The rank to have; by default the lowest that is free when the worker comes.
        ttl: Seconds within which the others know of this worker's death; from 3 to a day.
        timeout: Seconds to wait for all workers to come, and the default for all calls; None to wait for ever.
        clock: Measures waiting; for tests.

    Attributes:
        name: The group's.
        size: How many workers there are.
        rank: This worker's.

    Raises:
        ConfigurationError: An argument can't be used.
        NoStoreError: No store was given.
        DeadlineError: Workers did not come; ``context["ranks"]`` are theirs.
        GroupFullError: Others have the seats, or the one asked for.
        GroupSizeError: Others were started for another size.
        GroupError: A worker died as the run began, or this one's lease is gone.
        StoreError: The store failed.
    """

    def __init__(
        self,
        name: str,
        size: int,
        *,
        store: str | Store | None = None,
        rank: int | None = None,
        ttl: float = DEFAULT_TTL,
        timeout: float | None = DEFAULT_TIMEOUT,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        key = GroupKey(name)
        _check(size, rank, ttl)
        self.name = name
        self.size = size
        self._timeout = timeout
        self._clock = clock
        self._pid = os.getpid()
        self._is_closed = False
        deadline = Deadline(timeout, clock)
        with ExitStack() as cleanup:
            opened = _open(store, cleanup)
            self._lease = opened.grant(ttl - _EXPIRY, timeout=deadline.remaining())
            cleanup.callback(self._lease.close, CLOSE_TIMEOUT)
            self._link = Rendezvous(opened, key, size, rank, self._lease, clock, deadline).join()
            self._cleanup = cleanup.pop_all()
        self.rank = self._link.rank
        self._collectives = Collectives(self._link)
        self._mailbox = Mailbox(self._link)

    def barrier(self, *, ranks: Iterable[int] | None = None, timeout: Timeout = DEFAULT) -> None:
        """Wait until all workers have come here.

        Args:
            ranks: The workers that take part, this one among them; by default all.
            timeout: Seconds; None to wait for ever.

        Raises:
            DeadlineError: Workers did not come.
            CollectiveMismatchError: They made different calls.
            GroupError: A worker died, gave up, or left; or this one's lease is gone.
            StoreError: The store failed.
        """
        self._meet(Call("barrier", lambda _: b""), b"", ranks, timeout)

    def broadcast(
        self, value: Any = None, *, root: int = 0, ranks: Iterable[int] | None = None, timeout: Timeout = DEFAULT
    ) -> Any:
        """Return the root's value, on all workers.

        Args:
            value: On the root, what to send; elsewhere it is passed over.
            root: Whose value it is.
            ranks: As for :meth:`barrier`.
            timeout: As for :meth:`barrier`.

        Raises:
            As :meth:`barrier`, and:
            ConfigurationError: The value can't be sent, or the root does not take part.
        """
        name = f"broadcast from {root}"
        content = encode_value(value, name) if self.rank == root else b""
        result = self._meet(Call(name, lambda contents: contents[root]), content, ranks, timeout, root)
        return decode_value(result, name)

    def reduce(
        self,
        value: float,
        op: Reduction = "sum",
        *,
        root: int = 0,
        ranks: Iterable[int] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Any:
        """Reduce a number of each worker to one; return it on the root, None elsewhere.

        Args:
            value: An int or a float; a result of ints alone is exact (but for ``mean``, a float).
            op: ``sum``, ``min``, ``max`` or ``mean``.
            root: Who gets the result.
            ranks: As for :meth:`barrier`.
            timeout: As for :meth:`barrier`.

        Raises:
            As :meth:`barrier`, and:
            ConfigurationError: It is no number, there is no such reduction, or the root does not take part.
        """
        check_number(value, op)
        name = f"reduce {op} to {root}"

        def combine(contents: Mapping[int, bytes]) -> bytes:
            numbers = [decode_number(content, f"{name}: rank {rank}") for rank, content in contents.items()]
            return encode_value(reduce_numbers(numbers, op), name)

        number = float(value) if isinstance(value, float) else value  # numpy's are floats too
        result = self._meet(Call(name, combine, (root,)), encode_value(number, name), ranks, timeout, root)
        return decode_value(result, name) if self.rank == root else None

    def gather(
        self, value: Any, *, root: int = 0, ranks: Iterable[int] | None = None, timeout: Timeout = DEFAULT
    ) -> list[Any] | None:
        """Return the values of all workers in order of rank on the root, None elsewhere.

        Args:
            value: What this worker sends.
            root: Who gets them.
            ranks: As for :meth:`barrier`.
            timeout: As for :meth:`barrier`.

        Raises:
            As :meth:`barrier`, and:
            ConfigurationError: The value can't be sent, or the root does not take part.
        """
        name = f"gather to {root}"
        result = self._meet(Call(name, _listed, (root,)), encode_value(value, name), ranks, timeout, root)
        return _values(result, name) if self.rank == root else None

    def allgather(self, value: Any, *, ranks: Iterable[int] | None = None, timeout: Timeout = DEFAULT) -> list[Any]:
        """Return the values of all workers in order of rank, on all workers.

        Args:
            value: What this worker sends.
            ranks: As for :meth:`barrier`.
            timeout: As for :meth:`barrier`.

        Raises:
            As :meth:`barrier`, and:
            ConfigurationError: The value can't be sent.
        """
        return _values(
            self._meet(Call("allgather", _listed), encode_value(value, "allgather"), ranks, timeout), "allgather"
        )

    def send(self, rank: int, data: bytes, *, timeout: Timeout = DEFAULT) -> None:
        """Send bytes to another worker, which takes them by :meth:`recv`, in the order in which they were sent.

        It returns once they are in the store, without waiting for the other worker, unless 64 messages wait for it
        already, or these are more than 128 KiB: then once they were received.

        Args:
            rank: To whom.
            data: At most 64 MiB.
            timeout: Seconds; None to wait for ever.

        Raises:
            ConfigurationError: There is no such other worker, it is too much, or no bytes.
            DeadlineError: It does not receive.
            GroupError: A worker died or gave up, or that one left; or this one's lease is gone.
            StoreError: The store failed.
        """
        self._check_usable()
        self._check_other(rank, "send")
        try:
            content = bytes(memoryview(data))  # bytes(3) would be three zeros
        except TypeError as error:
            raise ConfigurationError(f"send to rank {rank}: a {type(data).__name__} is not bytes") from error
        self._mailbox.send(rank, content, self._deadline(timeout))

    def recv(self, rank: int, *, timeout: Timeout = DEFAULT) -> bytes:
        """Return the next bytes that another worker sent.

        Args:
            rank: From whom.
            timeout: Seconds; None to wait for ever.

        Raises:
            ConfigurationError: There is no such other worker.
            DeadlineError: It did not send.
            GroupError: A worker died or gave up, or that one left; or this one's lease is gone.
            StoreError: The store failed.
        """
        self._check_usable()
        self._check_other(rank, "recv")
        return self._mailbox.receive(rank, self._deadline(timeout))

    def fail(self, reason: str, *, timeout: Timeout = CLOSE_TIMEOUT) -> None:
        """Give up: the waits of all others end with a GroupFailedError that says who and why. Does nothing if the run
        has ended badly already.

        Args:
            reason: Why; at most 1,000 characters of it are told.
            timeout: Seconds.

        Raises:
            StoreError: The store failed; then the others find out when this worker leaves or dies.
        """
        if self._link.board.is_failed:
            return
        self._check_usable()
        told = reason[:MAX_REASON]
        put = Put(self._link.key.failed(self.rank), told.encode(errors="replace"), self._lease.id)
        self._link.write((put,), self._deadline(timeout))
        self._link.change(lambda board: board.fail(told))

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Leave: all keys of this worker vanish. Idempotent; does nothing in a forked child. If the store is away they
        vanish with the TTL.
        """
        if self._is_closed or os.getpid() != self._pid:
            return
        self._is_closed = True
        deadline = Deadline(timeout, self._clock)
        self._link.close()
        last = encode_record(SeatRecord(local_process(), "left"))
        with suppress(TrunklineError):  # the word is a kindness: what counts is that the lease ends
            self._link.write((Put(self._link.key.seat(self.rank), last, self._lease.id),), deadline)
        with suppress(TrunklineError):
            self._lease.close(deadline.remaining())
        self._cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self._is_closed and os.getpid() == self._pid:
            try:
                self.fail(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            except TrunklineError as failure:
                _log.warning("group %r could not be told of %r: %s", self.name, error, failure)
        self.close()

    def __repr__(self) -> str:
        return f"<Group {self.name!r} rank {self.rank} of {self.size}{' closed' if self._is_closed else ''}>"

    def _meet(
        self,
        call: Call,
        content: bytes,
        ranks: Iterable[int] | None,
        timeout: Timeout,
        root: int | None = None,
    ) -> bytes:
        self._check_usable()
        members = list(range(self.size)) if ranks is None else sorted(set(ranks))
        if self.rank not in members or not 0 <= members[0] <= members[-1] < self.size:
            raise ConfigurationError(
                f"{call.name}: ranks {members[:16]} must be between 0 and {self.size - 1} and hold this worker's, "
                f"{self.rank}",
                ranks=tuple(members),
                rank=self.rank,
            )
        if root is not None and root not in members:
            raise ConfigurationError(
                f"{call.name}: rank {root} does not take part; ranks {members[:16]} do", root=root, ranks=tuple(members)
            )
        return self._collectives.meet(call, content, members, self._deadline(timeout))

    def _deadline(self, timeout: Timeout) -> Deadline:
        return Deadline(self._timeout if isinstance(timeout, UseDefault) else timeout, self._clock)

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedError(
                f"group {self.name!r} was joined by process {self._pid}, which forked; the child is no worker of it",
                group=self.name,
                pid=self._pid,
            )
        if self._is_closed:
            raise ClosedError(f"group {self.name!r} was closed", group=self.name)
        self._link.check()

    def _check_other(self, rank: int, what: str) -> None:
        if rank == self.rank or not 0 <= rank < self.size:
            raise ConfigurationError(
                f"{what}: rank {rank} must be another worker's, between 0 and {self.size - 1}; this one is {self.rank}",
                rank=rank,
            )


def _listed(contents: Mapping[int, bytes]) -> bytes:
    data = pack_list(list(contents.values()))
    if len(data) > MAX_CONTENT_SIZE:
        raise ConfigurationError(f"the values have {len(data)} bytes together; at most {MAX_CONTENT_SIZE} can be sent")
    return data


def _values(data: bytes, what: str) -> list[Any]:
    values: list[Any] = decode_value(data, what)
    return values


def _check(size: int, rank: int | None, ttl: float) -> None:
    for what, number in (("size", size), ("rank", rank)):
        if number is not None and type(number) is not int:
            raise ConfigurationError(f"{what}={number!r} is a {type(number).__name__}, not an int", **{what: number})
    if not 1 <= size <= MAX_WORKERS:
        raise ConfigurationError(f"a group of {size} workers: from 1 to {MAX_WORKERS} are possible", size=size)
    if rank is not None and not 0 <= rank < size:
        raise ConfigurationError(
            f"rank {rank} of a group of {size}: ranks go from 0 to {size - 1}", rank=rank, size=size
        )
    if not _MIN_TTL <= ttl <= _MAX_TTL:
        raise ConfigurationError(f"ttl={ttl}: a worker's TTL lies between 3 seconds and a day", ttl=ttl)


def _open(store: str | Store | None, cleanup: ExitStack) -> Store:
    """Return the store to use; one that is opened here is closed by ``cleanup``."""
    if isinstance(store, Store):
        return store
    url = store or Settings.from_environment().store
    if url is None:
        raise NoStoreError("a group needs a store: pass store= or set NIXL_ETCD_ENDPOINTS; to try: trunkline etcd")
    return cleanup.enter_context(open_store(url))
