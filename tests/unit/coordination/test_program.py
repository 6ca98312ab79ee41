"""Any program of collectives and messages gives what a simple model says, also where calls run out of time and are made
again; if a worker ends in its middle the others get a part of that, and then are told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunkline.clock import DEFAULT, SYSTEM_CLOCK, Timeout
from trunkline.errors import (
    DeadlineError,
    GroupError,
    GroupFailedError,
    SeatLostError,
    WorkerLeftError,
    WorkerLostError,
)

if TYPE_CHECKING:
    from tests.workers import Workers

    from trunkline.coordination import Group
    from trunkline.store.contract import Store

LARGE = ...
"""Stands for a value that is chunked, and is short where a failing program is printed."""

subsets = st.sampled_from([(0, 1, 2), (0, 1), (0, 2), (1, 2), (1,)])
values = st.integers(-5, 5) | st.text(max_size=3) | st.just(LARGE)
steps = st.one_of(
    st.tuples(st.just("barrier"), subsets, st.none()),
    st.tuples(st.just("broadcast"), subsets, values),
    st.tuples(st.just("gather"), subsets, values),
    st.tuples(st.just("allgather"), subsets, values),
    st.tuples(st.sampled_from(["sum", "min", "max", "mean"]), subsets, st.integers(-5, 5)),
    st.tuples(st.just("send"), st.permutations([0, 1, 2]).map(lambda ranks: tuple(ranks[:2])), values),
)


def expanded(value: Any) -> Any:
    return b"x" * 140_000 if value is LARGE else value


def model(rank: int, step: tuple[str, tuple[int, ...], Any]) -> Any:
    """Return what a step gives a worker of this rank."""
    what, ranks, value = step[0], step[1], expanded(step[2])
    root = ranks[-1]
    match what:
        case "barrier":
            return None
        case "broadcast":
            return value
        case "gather":
            return [value * (each + 1) for each in ranks] if rank == root else None
        case "allgather":
            return [value * (each + 1) for each in ranks]
        case "send":
            return str(value).encode() if rank == root else None
    numbers = [value + each for each in ranks]
    reduced = {"sum": sum(numbers), "min": min(numbers), "max": max(numbers), "mean": sum(numbers) / len(numbers)}
    return reduced[what] if rank == root else None


def do(group: Group, step: tuple[str, tuple[int, ...], Any], timeout: Timeout = DEFAULT) -> Any:
    what, ranks, value = step[0], step[1], expanded(step[2])
    root = ranks[-1]
    match what:
        case "barrier":
            return group.barrier(ranks=ranks, timeout=timeout)
        case "broadcast":
            return group.broadcast(value if group.rank == root else None, root=root, ranks=ranks, timeout=timeout)
        case "gather":
            return group.gather(value * (group.rank + 1), root=root, ranks=ranks, timeout=timeout)
        case "allgather":
            return group.allgather(value * (group.rank + 1), ranks=ranks, timeout=timeout)
        case "send":
            if group.rank == root:
                return group.recv(ranks[0], timeout=timeout)
            return group.send(root, str(value).encode(), timeout=timeout)
    return group.reduce(value + group.rank, what, root=root, ranks=ranks, timeout=timeout)  # type: ignore[arg-type]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=12))
def test_any_program_gives_what_it_should(workers: Workers, store: Store, program: list[Any]) -> None:
    def work(group: Group) -> Any:
        found = [do(group, step) for step in program if group.rank in step[1]]
        group.barrier()
        return found

    expected = [[model(rank, step) for step in program if rank in step[1]] for rank in range(3)]
    assert workers.all(3, work, clock=SYSTEM_CLOCK) == expected  # nothing waits for time here
    assert store.list("/trunkline/", timeout=1).entries == ()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=8))
def test_calls_that_run_out_of_time_again_and_again_lose_nothing(
    workers: Workers, store: Store, program: list[Any]
) -> None:
    def impatiently(group: Group, step: Any) -> Any:
        while True:
            try:
                return do(group, step, 0)
            except DeadlineError:
                continue

    def work(group: Group) -> Any:
        found = [impatiently(group, step) for step in program if group.rank in step[1]]
        group.barrier()
        return found

    expected = [[model(rank, step) for step in program if rank in step[1]] for rank in range(3)]
    assert workers.all(3, work, clock=SYSTEM_CLOCK) == expected
    assert store.list("/trunkline/", timeout=1).entries == ()


TOLD: dict[str, type[GroupError]] = {"fail": GroupFailedError, "leave": WorkerLeftError, "lose": WorkerLostError}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=8), st.integers(0, 2), st.integers(0, 8), st.sampled_from(sorted(TOLD)))
def test_a_worker_that_ends_spoils_no_result(
    workers: Workers, store: Store, program: list[Any], who: int, place: int, how: str
) -> None:
    def end(group: Group) -> None:
        if how == "fail":
            group.fail("enough")
        elif how == "lose":
            store.revoke(group._lease.id, timeout=1)

    def work(group: Group) -> tuple[list[Any], GroupError | None]:
        found = []
        try:
            for number, step in enumerate(program):
                if (number, group.rank) == (place, who):
                    end(group)
                    if how == "leave":
                        break
                if group.rank in step[1]:
                    found.append(do(group, step))
        except GroupError as error:
            return found, error
        return found, None

    for rank, result in enumerate(workers.all(3, work, clock=SYSTEM_CLOCK, timeout=20)):
        found, error = result if isinstance(result, tuple) else ([], result)  # it may be told while it joins
        expected = [model(rank, step) for step in program if rank in step[1]]
        assert found == expected[: len(found)]
        if rank == who and how == "lose":
            assert error is None or isinstance(error, SeatLostError)
        else:
            assert error is None or isinstance(error, TOLD[how])
        if rank != who and error is None:
            assert len(found) == len(expected)
    assert store.list("/trunkline/", timeout=1).entries == ()
