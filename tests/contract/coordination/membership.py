"""Who is in a group, and what the others are told of those who are missing, on any store that has etcd's semantics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.coordination.conftest import until_gone, until_there
from tests.workers import PATIENCE

from trunkline.coordination import Group
from trunkline.errors import (
    DeadlineError,
    GroupFailedError,
    GroupFullError,
    GroupSizeError,
    SeatLostError,
    WorkerLeftError,
    WorkerLostError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.workers import Workers

    from trunkline.store.contract import Store

SHORT = 0.3
"""Seconds of waits that are meant to run out."""


class MembershipContract:
    """Subclasses have a fixture ``open_store``: gives a new handle to one store."""

    def test_ranks_by_arrival_are_all_different(self, workers: Workers) -> None:
        found = workers.all(5, lambda group: (group.rank, group.size, group.name), rank=None)
        assert sorted(found) == [(rank, 5, workers.name) for rank in range(5)]

    def test_runs_of_one_name_follow_each_other(self, workers: Workers) -> None:
        for size in (2, 3, 1, 2):
            assert workers.all(size, lambda group: group.allgather(group.rank)) == [list(range(size))] * size

    def test_a_missing_worker_is_named(self, workers: Workers) -> None:
        (error,) = workers.start(lambda _: None, size=3, timeout=SHORT)()
        assert isinstance(error, DeadlineError)
        assert error.context["ranks"] == (1, 2)
        assert "2 of 3 workers did not come within 0." in str(error)
        assert "missing: ranks 1, 2; here: rank 0" in str(error)

    def test_a_worker_too_many_is_told_who_is_there(self, workers: Workers, open_store: Callable[[], Store]) -> None:
        def work(group: Group) -> Any:
            group.barrier()
            if group.rank == 0:
                with (
                    open_store() as store,
                    pytest.raises(GroupFullError, match=r"rank 0: pid \d+ on .*, rank 1: pid") as caught,
                ):
                    Group(group.name, 2, store=store, timeout=SHORT)
                group.barrier()
                return caught.value.context["size"]
            group.barrier()
            return None

        assert workers.all(2, work) == [2, None]

    def test_a_rank_that_somebody_has_is_refused(self, workers: Workers, open_store: Callable[[], Store]) -> None:
        waiting = workers.start(lambda _: None, size=2, timeout=PATIENCE)
        with open_store() as store:
            until_there(store, workers.name, "/seat/0")
            with pytest.raises(GroupFullError, match="rank 0 is taken"):
                Group(workers.name, 2, store=store, rank=0, timeout=SHORT)
            Group(workers.name, 2, store=store, rank=1).close()
        assert waiting() == [None]

    def test_workers_that_disagree_on_the_size_are_told_both(
        self, workers: Workers, open_store: Callable[[], Store]
    ) -> None:
        waiting = workers.start(lambda _: None, size=2, timeout=PATIENCE)
        with open_store() as store:
            until_there(store, workers.name, "/seat/0")
            with pytest.raises(GroupSizeError, match="started for 3 workers, but there is a run of 2") as caught:
                Group(workers.name, 3, store=store, timeout=SHORT)
            assert (caught.value.context["size"], caught.value.context["found"]) == (3, 2)
            Group(workers.name, 2, store=store).close()
        assert waiting() == [None]

    def test_a_worker_that_does_not_come_is_named_and_the_call_may_be_made_again(self, workers: Workers) -> None:
        def work(group: Group) -> Any:
            named = None
            if group.rank != 2:
                with pytest.raises(DeadlineError, match=r"still waiting for rank 2 \(pid") as caught:
                    group.allgather(group.rank, timeout=SHORT)
                named = caught.value.context["ranks"]
                group.barrier(ranks=[0, 1])
                if group.rank == 0:
                    group.send(2, b"come")
            else:
                group.recv(0)
            return named, group.allgather(group.rank), group.allgather(-group.rank)

        assert workers.all(3, work) == [
            ((2,), [0, 1, 2], [0, -1, -2]),
            ((2,), [0, 1, 2], [0, -1, -2]),
            (None, [0, 1, 2], [0, -1, -2]),
        ]

    def test_a_hub_that_does_not_come_is_named(self, workers: Workers) -> None:
        def wait(group: Group) -> Any:
            with pytest.raises(DeadlineError) as caught:
                group.barrier(timeout=SHORT)
            group.send(0, b"")
            group.barrier()
            return caught.value.context["ranks"]

        def come_late(group: Group) -> None:
            group.recv(1)
            group.barrier()

        assert workers.together(come_late, wait) == [None, (0,)]

    def test_who_gives_up_ends_the_waits_of_all(self, workers: Workers) -> None:
        def work(group: Group) -> None:
            if group.rank == 1:
                group.fail("no such device")
                group.fail("this comes too late")
            group.barrier()

        errors = workers.all(3, work)
        for error in errors:
            assert isinstance(error, GroupFailedError)
            assert (error.rank, error.reason) == (1, "no such device")

    def test_an_exception_is_told_to_the_others(self, workers: Workers) -> None:
        def work(group: Group) -> None:
            if group.rank == 1:
                raise KeyboardInterrupt
            group.recv(1)

        first, second, third = workers.all(3, work)
        assert isinstance(second, KeyboardInterrupt)
        for error in (first, third):
            assert isinstance(error, GroupFailedError)
            assert (error.rank, error.reason) == (1, "KeyboardInterrupt")

    def test_a_worker_whose_lease_is_gone_is_named_to_all_and_told_itself(
        self, workers: Workers, watcher: Store
    ) -> None:
        def work(group: Group) -> None:
            group.barrier()
            if group.rank == 0:
                (seat,) = [
                    entry
                    for entry in watcher.list("/trunkline/groups/" + group.name, timeout=5).entries
                    if "/seat/2" in entry.key
                ]
                watcher.revoke(seat.lease, timeout=5)
            group.barrier(ranks=[0, 1] if group.rank < 2 else [2])
            group.recv((group.rank + 1) % 3)

        first, second, third = workers.all(3, work)
        for error in (first, second):
            assert isinstance(error, WorkerLostError)
            assert error.ranks == (2,)
        assert isinstance(third, SeatLostError)
        assert "its lease ran out or was revoked" in str(third)

    def test_a_worker_that_left_in_order_is_told_apart(self, workers: Workers, watcher: Store) -> None:
        def work(group: Group) -> Any:
            group.barrier()
            if group.rank == 2:
                return "left"
            until_gone(watcher, group.name, "/seat/2")
            for _ in range(3):
                group.barrier(ranks=[0, 1])
            with pytest.raises(WorkerLeftError, match=r"worker 2 \(pid .* left group") as caught:
                group.barrier()
            with pytest.raises(WorkerLeftError):
                group.recv(2)
            with pytest.raises(WorkerLeftError):
                group.send(2, b"x")
            group.barrier(ranks=[0, 1])
            return caught.value.ranks

        found = workers.all(3, work)
        assert found == [(2,), (2,), "left"]
