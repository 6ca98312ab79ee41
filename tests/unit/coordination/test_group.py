"""What a group does beside its contract: threads, forks and lost answers."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline.coordination import Group
from trunkline.coordination.key import GroupKey
from trunkline.coordination.record import Parcel, encode_parcel
from trunkline.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineError,
    ForkedError,
    GroupFailedError,
    MetadataDecodeError,
    NoStoreError,
    StoreUnavailableError,
)
from trunkline.store import open_store as open_any
from trunkline.store.contract import Put, Transaction
from trunkline.testing.faulty_store import Fault, FaultyStore
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.workers import Workers

    from trunkline.store.contract import Store
    from trunkline.testing.clock import FakeClock

LARGE = 200_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": 1025},
        {"size": "2"},
        {"size": 2.0},
        {"rank": -1},
        {"rank": 2},
        {"rank": "1"},
        {"ttl": 2.9},
        {"ttl": 86_401},
        {"name": "a/b"},
    ],
    ids=str,
)
def test_arguments_that_can_not_be_used_are_refused(store: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Group(**{"name": "g", "size": 2, "store": store, **wrong})


def test_a_group_needs_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIXL_ETCD_ENDPOINTS", raising=False)
    with pytest.raises(NoStoreError, match="NIXL_ETCD_ENDPOINTS"):
        Group("g", 1)


def test_the_store_may_be_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIXL_ETCD_ENDPOINTS", "memory://of-the-environment")
    with Group("g", 1) as group, open_any("memory://of-the-environment") as store:
        assert group.rank == 0
        assert store.list("/trunkline/groups/g/", timeout=1).entries


def test_floats_of_numpy_can_be_reduced(store: Store, clock: FakeClock) -> None:
    with Group("g", 1, store=store, clock=clock) as group:
        assert group.reduce(np.float64(1.5), "max") == 1.5


def test_a_store_that_was_given_stays_open(store: Store, clock: FakeClock) -> None:
    Group("g", 1, store=store, clock=clock).close()
    assert store.list("/trunkline/", timeout=1).entries == ()


def test_a_closed_group_says_so(store: Store, clock: FakeClock) -> None:
    group = Group("g", 1, store=store, clock=clock)
    assert repr(group) == "<Group 'g' rank 0 of 1>"
    group.close()
    group.close()
    assert repr(group) == "<Group 'g' rank 0 of 1 closed>"
    for call in (group.barrier, lambda: group.fail("why"), lambda: group.recv(1), lambda: group.send(1, b"")):
        with pytest.raises(ClosedError, match="group 'g' was closed"):
            call()


def test_closing_wakes_a_thread_that_waits(workers: Workers, clock: FakeClock) -> None:
    def wait(group: Group) -> Any:
        def close() -> None:
            clock.until_waiting(2)
            group.close()

        closer = threading.Thread(target=close)
        closer.start()
        try:
            group.recv(1)
        finally:
            closer.join()

    def come_last(group: Group) -> Any:
        group.recv(0)

    first, second = workers.together(wait, come_last)
    assert isinstance(first, ClosedError)
    assert isinstance(second, Exception)


def test_a_forked_child_is_no_worker(store: Store, clock: FakeClock) -> None:
    with Group("g", 1, store=store, clock=clock) as group:
        pid = os.fork()
        if not pid:
            try:
                group.barrier()
            except ForkedError as error:
                group.close()
                os._exit("the child is no worker" in str(error))
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        assert store.list("/trunkline/groups/g/", timeout=1).entries  # the child took nothing back
        group.barrier()


def test_a_deadline_names_who_is_missing_at_its_time(workers: Workers, store: Store, clock: FakeClock) -> None:
    def let_pass(group: Group) -> None:
        key = group._link.key.arrival(0, 0b11, 1)
        eventually(lambda: store.get(key, timeout=1)[0] is not None)  # it has come, and its time runs
        clock.advance(7)
        group.recv(1)

    def wait(group: Group) -> Any:
        with pytest.raises(DeadlineError) as caught:
            group.barrier(timeout=7)
        group.send(0, b"")
        return caught.value.context["ranks"], caught.value.context["elapsed"]

    assert workers.together(let_pass, wait) == [None, ((0,), 7.0)]


def test_threads_of_one_worker_wait_side_by_side(workers: Workers) -> None:
    """One reads the watches for all: whoever is done hands that on."""

    def many(group: Group) -> Any:
        found: list[Any] = [None] * 3
        calls: list[Callable[[], Any]] = [
            lambda: [group.recv(1) for _ in range(20)],
            lambda: [group.allgather(number, ranks=[0, 1]) for number in range(20)],
            lambda: [group.allgather(number, ranks=[0, 2]) for number in range(20)],
        ]

        def run(place: int) -> None:
            found[place] = calls[place]()

        threads = [threading.Thread(target=run, args=(place,)) for place in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    def one(group: Group) -> None:
        for number in range(20):
            group.allgather(-number, ranks=[0, 1])
            group.send(0, b"%d" % number)

    def another(group: Group) -> None:
        for number in range(20):
            group.allgather(-number, ranks=[0, 2])

    pairs = [[number, -number] for number in range(20)]
    messages = [b"%d" % number for number in range(20)]
    assert workers.together(many, one, another) == [[messages, pairs, pairs], None, None]


def test_two_threads_in_the_same_collective_take_turns(workers: Workers) -> None:
    def twice(group: Group) -> None:
        threads = [threading.Thread(target=group.barrier) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert workers.all(2, twice) == [None] * 2


@pytest.mark.parametrize("place", range(8))
def test_calls_whose_answers_were_lost_may_be_made_again(
    open_store: Callable[[], Store], workers: Workers, store: Store, place: int
) -> None:
    faulty = [FaultyStore(open_store()) for _ in range(2)]
    stores = iter(faulty)
    workers.open_store = lambda: next(stores)

    def patiently(call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except StoreUnavailableError:
                continue

    def work(group: Group) -> Any:
        group.barrier()
        faults = faulty[0 if group._link.store is faulty[0] else 1].faults
        faults.extend([Fault.NONE] * place + [Fault.LOST_ANSWER, Fault.NONE, Fault.LOST_REQUEST])
        found = [patiently(lambda: group.allgather(bytes([group.rank]) * LARGE)) == [bytes(LARGE), b"\1" * LARGE]]
        other = 1 - group.rank
        for number in range(3):
            if group.rank:
                patiently(lambda: group.send(other, b"%d" % number))  # noqa: B023 - called at once
            found.append(patiently(lambda: group.recv(other)))
            if not group.rank:
                patiently(lambda: group.send(other, b"%d" % number))  # noqa: B023
        found.append(patiently(lambda: group.reduce(1)))
        faults.clear()
        group.barrier()
        return found, [entry.key for entry in store.list("/trunkline/groups/workers/chunks", timeout=1).entries]

    messages = [b"0", b"1", b"2"]
    assert workers.all(2, work) == [([True, *messages, 2], []), ([True, *messages, None], [])]


def test_chunks_that_somebody_meddled_with_are_named(workers: Workers, store: Store) -> None:
    key = GroupKey("workers")

    def send(group: Group) -> None:
        run = group._link.key
        lease = group._link.board.members[1]
        puts = (
            Put(f"{run.message_chunks(0, 1)}0/0", b"short", lease),
            Put(run.message(1, 0, 0), encode_parcel(Parcel(0, "message", size=LARGE)), lease),
        )
        store.transact(Transaction((), puts), timeout=1)
        group.recv(1)

    def receive(group: Group) -> None:
        group.recv(0)

    first, second = workers.together(send, receive)
    assert isinstance(second, MetadataDecodeError)
    assert f"/trunkline/groups/{key.name}/chunks/" in str(second)
    assert isinstance(first, GroupFailedError)
    assert first.reason.startswith("MetadataDecodeError: ")
