"""Collectives whose calls are cut short, or end at a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from trunkline.errors import (
    CollectiveMismatchError,
    DeadlineError,
    StoreUnavailableError,
)
from trunkline.testing.faulty_store import Fault, FaultyStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.workers import Workers

    from trunkline.coordination import Group
    from trunkline.store.contract import Store

LARGE = 200_000


@pytest.fixture
def faulty_workers(open_store: Callable[[], Store], workers: Workers) -> Workers:
    workers.open_store = lambda: FaultyStore(open_store())
    return workers


def store_of(group: Group) -> FaultyStore:
    store = group._link.store
    assert isinstance(store, FaultyStore)
    return store


def test_a_call_in_place_of_one_that_ran_out_of_time_is_told_apart(workers: Workers) -> None:
    def meet(group: Group) -> Any:
        group.recv(1)
        group.barrier()
        group.send(1, b"it is over")
        return group.allgather(group.rank)

    def change_ones_mind(group: Group) -> Any:
        with pytest.raises(DeadlineError):
            group.barrier(timeout=0)
        group.send(0, b"the barrier is yours")
        group.recv(0)
        with pytest.raises(CollectiveMismatchError, match=r"barrier: 0; allgather: 1"):
            group.allgather(group.rank)
        return group.allgather(group.rank)

    assert workers.together(meet, change_ones_mind) == [[0, 1]] * 2


def test_a_large_result_is_not_taken_for_that_of_another_call(faulty_workers: Workers) -> None:
    def send(group: Group) -> Any:
        group.broadcast(bytes(LARGE))
        return group.allgather("after")

    def fail_to_say_that_it_was_read(group: Group) -> Any:
        store_of(group).faults.extend([Fault.NONE, Fault.NONE, Fault.LOST_REQUEST])  # the arrival, the chunk
        with pytest.raises(StoreUnavailableError):
            group.broadcast()
        with pytest.raises(CollectiveMismatchError, match=r"broadcast from 0: 0; allgather: 1"):
            group.allgather("too early")
        return group.allgather("after")

    assert faulty_workers.together(send, fail_to_say_that_it_was_read) == [["after", "after"]] * 2
