"""Collectives whose calls are cut short, or end at a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from trunkline.coordination.group import _listed
from trunkline.coordination.record import MAX_CONTENT_SIZE
from trunkline.errors import (
    CollectiveMismatchError,
    ConfigurationError,
    DeadlineError,
    SeatLostError,
    StoreUnavailableError,
)
from trunkline.store.contract import Interrupted
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


def test_nothing_is_asked_of_a_store_that_is_away_once_the_time_is_over(
    faulty_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(group: Group) -> Any:
        group._link.change(lambda board: board.take_run(Interrupted("no route")))
        monkeypatch.setattr(store_of(group), "list", None)
        with pytest.raises(DeadlineError, match=r"\(who can't be found out\)\. The store can't be reached: no route\."):
            group.barrier(timeout=0)
        group.send(0, b"")

    assert faulty_workers.together(lambda group: group.recv(1), wait) == [b"", None]


def test_values_that_are_too_large_as_a_list_are_refused_where_they_are_put_together() -> None:
    with pytest.raises(ConfigurationError, match=f"{MAX_CONTENT_SIZE + 1} bytes together"):
        _listed({0: bytes(MAX_CONTENT_SIZE)})  # one byte more says that it is a list of one
    assert len(_listed({0: bytes(MAX_CONTENT_SIZE - 1)})) == MAX_CONTENT_SIZE


def test_who_has_lost_its_seat_does_not_go_on_alone(workers: Workers, store: Store) -> None:
    def work(group: Group) -> None:
        group.barrier()
        store.revoke(group._lease.id, timeout=1)
        group.allgather(1)

    (error,) = workers.together(work)
    assert isinstance(error, SeatLostError)


def test_who_has_lost_its_seat_does_not_try_to_tell_the_others(
    workers: Workers, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """They know; the failed attempt would only be a puzzling warning."""

    def work(group: Group) -> None:
        store.revoke(group._lease.id, timeout=1)
        group.send(1, b"")

    first, _ = workers.together(work, lambda group: group.recv(0))
    assert isinstance(first, SeatLostError)
    assert caplog.messages == []
