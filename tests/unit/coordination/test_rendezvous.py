"""How a run is found: what the contract can't show without moving the clock or losing answers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from trunkline.coordination.key import GroupKey
from trunkline.coordination.record import RunRecord, SeatRecord, decode_run, encode_record
from trunkline.errors import (
    DeadlineError,
    GroupFullError,
    GroupSizeError,
    MetadataDecodeError,
    SeatLostError,
    StoreUnavailableError,
)
from trunkline.metadata.presence import ProcessRecord
from trunkline.process import local_process
from trunkline.store.contract import Delete, Put, Transaction
from trunkline.testing.faulty_store import Fault, FaultyStore
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.workers import Workers

    from trunkline.store.contract import Lease, Store
    from trunkline.testing.clock import FakeClock

KEY = GroupKey("workers")
RUN = KEY.of_run("0" * 32)
ELSEWHERE = ProcessRecord(host="another", pid=7)


def occupy(store: Store, *processes: ProcessRecord, size: int, is_begun: bool = True) -> list[Lease]:
    """Write a run as its workers would, the first being its founder; return their leases."""
    leases = [store.grant(9, timeout=1) for _ in processes]
    record = RunRecord(RUN.token, size, leases[0].id, tuple(lease.id for lease in leases) if is_begun else ())
    puts = [Put(KEY.run, encode_record(record), leases[0].id)]
    for rank, (process, lease) in enumerate(zip(processes, leases, strict=True)):
        puts.append(Put(RUN.seat(rank), encode_record(SeatRecord(process)), lease.id))
    store.transact(Transaction((), tuple(puts)), timeout=1)
    return leases


def gone_process() -> ProcessRecord:
    """A process of this machine that has ended."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return msgspec.structs.replace(local_process(), pid=pid, started=1)


def seats(store: Store) -> int:
    return sum("/seat/" in entry.key for entry in store.list(KEY.run, timeout=1).entries)


def test_missing_workers_are_named_when_the_time_is_over(workers: Workers, store: Store, clock: FakeClock) -> None:
    wait = workers.start(lambda _: None, size=5)
    eventually(lambda: seats(store) == 1)
    patient = workers.start(lambda _: None, size=5, first=1, timeout=600)
    eventually(lambda: seats(store) == 2)
    clock.until_waiting(3)  # two workers, and the store's own thread
    clock.advance(60)
    (error,) = wait()
    assert isinstance(error, DeadlineError)
    assert error.context["ranks"] == (2, 3, 4)
    assert "3 of 5 workers did not come within 60.0 s (missing: ranks 2, 3, 4; here: ranks 0, 1)" in str(error)
    eventually(lambda: seats(store) == 1)
    clock.until_waiting(2)
    clock.advance(540)
    (error,) = patient()
    assert isinstance(error, DeadlineError)
    assert error.context["ranks"] == (0, 2, 3, 4)
    assert store.list("/trunkline/", timeout=1).entries == ()


def test_workers_of_a_run_that_does_not_end_are_named_when_the_time_is_over(
    workers: Workers, store: Store, clock: FakeClock
) -> None:
    occupy(store, ELSEWHERE, ELSEWHERE, size=2)
    wait = workers.start(lambda _: None, size=2)
    clock.until_waiting(2)
    clock.advance(60)
    (error,) = wait()
    assert isinstance(error, GroupFullError)
    assert "rank 0: pid 7 on another, rank 1: pid 7 on another" in str(error)
    assert "waited 60.0 s" in str(error)


def test_a_run_that_ends_makes_room(workers: Workers, store: Store, clock: FakeClock) -> None:
    founder, other = occupy(store, ELSEWHERE, ELSEWHERE, size=2)
    wait = workers.start(lambda group: group.allgather(group.rank), lambda group: group.allgather(group.rank))
    clock.until_waiting(3)
    other.close()
    founder.close()
    assert wait() == [[0, 1]] * 2


def test_a_run_of_another_size_is_told_of_as_soon_as_its_founder_must_live(
    workers: Workers, store: Store, clock: FakeClock
) -> None:
    occupy(store, ELSEWHERE, ELSEWHERE, size=3, is_begun=False)
    wait = workers.start(lambda _: None, size=2)
    clock.until_waiting(2)
    clock.advance(12)  # not the 60 seconds of the timeout
    (error,) = wait()
    assert isinstance(error, GroupSizeError)
    assert "started for 2 workers, but there is a run of 3 (rank 0: pid 7 on another" in str(error)


def test_a_crashed_run_of_another_size_is_waited_for(workers: Workers, store: Store, clock: FakeClock) -> None:
    founder, _ = occupy(store, ELSEWHERE, ELSEWHERE, size=3, is_begun=False)
    founder.orphan()
    wait = workers.start(lambda group: group.size, size=1)
    clock.until_waiting(2)
    clock.advance(9.5)
    assert wait() == [1]


def test_processes_that_have_ended_on_this_machine_are_not_waited_for(workers: Workers, store: Store) -> None:
    occupy(store, gone_process(), gone_process(), size=2)
    assert workers.all(2, lambda group: group.allgather(group.rank)) == [[0, 1]] * 2


def test_a_worker_takes_the_rank_of_one_that_died_while_others_were_missing(workers: Workers, store: Store) -> None:
    wait = workers.start(lambda group: group.allgather(group.rank), size=3)
    eventually(lambda: seats(store) == 1)
    (run,) = [entry for entry in store.list(KEY.run, timeout=1).entries if entry.key == KEY.run]
    dead = store.grant(9, timeout=1)
    put = Put(
        KEY.of_run(decode_run(run.key, run.value).token).seat(1), encode_record(SeatRecord(gone_process())), dead.id
    )
    store.transact(Transaction((), (put,)), timeout=1)
    others = workers.start(lambda group: group.allgather(1), lambda group: group.allgather(2), size=3, first=1)
    assert [*wait(), *others()] == [[0, 1, 2]] * 3


def test_who_loses_the_lease_while_waiting_is_told(workers: Workers, store: Store) -> None:
    wait = workers.start(lambda _: None, size=2)
    eventually(lambda: seats(store) == 1)
    for entry in store.list(KEY.run, timeout=1).entries:
        store.revoke(entry.lease, timeout=1)
    (error,) = wait()
    assert isinstance(error, SeatLostError)


def test_workers_begin_again_when_the_run_record_is_deleted(workers: Workers, store: Store) -> None:
    wait = workers.start(lambda group: group.allgather(group.rank), lambda group: group.allgather(group.rank), size=3)
    eventually(lambda: seats(store) == 2)
    store.transact(Transaction((), (Delete(KEY.run),)), timeout=1)
    last = workers.start(lambda group: group.allgather(group.rank), size=3, first=2)
    assert [*wait(), *last()] == [[0, 1, 2]] * 3


def test_a_seat_that_no_worker_has_does_not_count(workers: Workers, store: Store) -> None:
    wait = workers.start(lambda group: group.allgather(group.rank), size=2)
    eventually(lambda: seats(store) == 1)
    (run,) = [entry for entry in store.list(KEY.run, timeout=1).entries if entry.key == KEY.run]
    foreign = KEY.of_run(decode_run(run.key, run.value).token).seat(7)
    store.transact(Transaction((), (Put(foreign, encode_record(SeatRecord(ELSEWHERE))),)), timeout=1)
    other = workers.start(lambda group: group.allgather(group.rank), size=2, first=1)
    assert [*wait(), *other()] == [[0, 1]] * 2


def test_a_seat_without_a_lease_is_not_freed_again_and_again(
    open_store: Callable[[], Store], workers: Workers, store: Store, clock: FakeClock
) -> None:
    (founder,) = occupy(store, ELSEWHERE, size=2, is_begun=False)
    put = Put(RUN.seat(1), encode_record(SeatRecord(gone_process())))
    store.transact(Transaction((), (put,)), timeout=1)
    faulty = FaultyStore(open_store())
    workers.open_store = lambda: faulty
    wait = workers.start(lambda group: group.rank, size=1)
    clock.until_waiting(2)
    assert len(faulty.transactions) == 1
    founder.close()
    assert wait() == [0]


def test_who_loses_the_lease_before_it_has_a_seat_is_told(
    open_store: Callable[[], Store], workers: Workers, store: Store, clock: FakeClock
) -> None:
    founder, _ = occupy(store, ELSEWHERE, ELSEWHERE, size=2)
    faulty = FaultyStore(open_store())
    workers.open_store = lambda: faulty
    wait = workers.start(lambda _: None, size=2)
    clock.until_waiting(2)
    store.revoke(faulty.leases[0].id, timeout=1)
    founder.close()
    (error,) = wait()
    assert isinstance(error, SeatLostError)
    assert "it waited for a seat. Join again" in str(error)


def test_a_run_record_that_is_none_is_named(workers: Workers, store: Store) -> None:
    store.transact(Transaction((), (Put(KEY.run, b"garbage"),)), timeout=1)
    (error,) = workers.together(lambda _: None)
    assert isinstance(error, MetadataDecodeError)
    assert KEY.run in str(error)


@pytest.mark.parametrize("place", range(6))
def test_a_client_that_sends_again_finds_its_own_effect(
    open_store: Callable[[], Store], workers: Workers, store: Store, place: int
) -> None:
    faulty = [FaultyStore(open_store()) for _ in range(2)]
    for each in faulty:
        each.faults.extend([Fault.NONE] * place + [Fault.REPEATED])
    stores = iter(faulty)
    workers.open_store = lambda: next(stores)
    assert (
        workers.all(2, lambda group: [group.allgather(number) for number in range(3)])
        == [[[0] * 2, [1] * 2, [2] * 2]] * 2
    )
    assert store.list("/trunkline/", timeout=1).entries == ()


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.LOST_REQUEST])
def test_who_gives_up_leaves_no_seat(
    open_store: Callable[[], Store], workers: Workers, store: Store, fault: Fault
) -> None:
    faulty = FaultyStore(open_store())
    faulty.faults.append(fault)
    workers.open_store = lambda: faulty
    (error,) = workers.start(lambda _: None, size=2)()
    assert isinstance(error, StoreUnavailableError)
    assert store.list("/trunkline/", timeout=1).entries == ()
