"""What a group's collective calls and messages promise, on any store that has etcd's semantics."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.coordination.conftest import keys, until_gone

from trunkline.errors import CollectiveMismatchError, ConfigurationError, DeadlineError

if TYPE_CHECKING:
    from tests.workers import Workers

    from trunkline.coordination import Group
    from trunkline.store.contract import Store


class CollectiveContract:
    """Subclasses have a fixture ``open_store``: gives a new handle to one store."""

    def test_a_group_of_one(self, workers: Workers) -> None:
        def work(group: Group) -> Any:
            group.barrier()
            return group.broadcast(1), group.reduce(2), group.gather(3), group.allgather((4, 5))

        assert workers.together(work) == [(1, 2, [3], [[4, 5]])]

    def test_nobody_leaves_a_barrier_before_all_have_come(self, workers: Workers) -> None:
        seen: list[int] = []

        def work(group: Group) -> int:
            counts = []
            for _ in range(20):
                seen.append(group.rank)
                group.barrier()
                counts.append(len(seen))
                group.barrier()
            return sum(count == 4 * turn for turn, count in enumerate(counts, 1))

        assert workers.all(4, work) == [20] * 4

    @pytest.mark.parametrize(
        "value",
        [
            0,
            -(2**63),
            2**64 - 1,
            1.5,
            -math.inf,
            "héllo",
            b"\0\xff",
            None,
            True,
            [],
            {"a": [1, {"b": b"c"}]},
            b"x" * 65_536,
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_broadcast_gives_everybody_the_value_of_any_root(self, workers: Workers, value: object) -> None:
        def work(group: Group) -> Any:
            return [group.broadcast(value if group.rank == root else "not this", root=root) for root in range(3)]

        assert workers.all(3, work) == [[value] * 3] * 3

    def test_gather_and_reduce_give_the_root_alone_the_result(self, workers: Workers) -> None:
        def work(group: Group) -> Any:
            numbers = [group.reduce(group.rank * 10 + 1, op, root=2) for op in ("sum", "min", "max", "mean")]
            return [*numbers, group.reduce(0.5, "sum", root=2), group.gather({"rank": group.rank}, root=2)]

        assert workers.all(3, work) == [
            [None] * 6,
            [None] * 6,
            [33, 1, 21, 11.0, 1.5, [{"rank": 0}, {"rank": 1}, {"rank": 2}]],
        ]

    def test_large_values_arrive_whole_and_leave_nothing(self, workers: Workers, watcher: Store) -> None:
        def work(group: Group) -> Any:
            big = [group.broadcast(bytes([turn]) * 3_000_000 if group.rank == 1 else None, root=1) for turn in range(3)]
            parts = group.allgather(bytes([group.rank]) * 400_000)
            only = group.gather(bytes([group.rank]) * 400_000, root=2)
            group.barrier()
            chunks = keys(watcher, workers.name, "/chunks/")
            return (
                big == [bytes([turn]) * 3_000_000 for turn in range(3)],
                parts == [bytes([rank]) * 400_000 for rank in range(3)],
                only == parts if group.rank == 2 else only is None,
                chunks,
            )

        assert workers.all(3, work) == [(True, True, True, [])] * 3

    def test_disjoint_subsets_meet_by_themselves(self, workers: Workers) -> None:
        def work(group: Group) -> Any:
            pair = [0, 2] if group.rank in (0, 2) else [3, 1]
            turns = 15 if group.rank in (0, 2) else 4
            mine = [group.allgather((group.rank, turn), ranks=pair) for turn in range(turns)]
            return len(mine), mine[-1], group.reduce(group.rank, "max", root=pair[0], ranks=pair), group.allgather(0)

        assert workers.all(4, work) == [
            (15, [[0, 14], [2, 14]], 2, [0] * 4),
            (4, [[1, 3], [3, 3]], None, [0] * 4),
            (15, [[0, 14], [2, 14]], None, [0] * 4),
            (4, [[1, 3], [3, 3]], 3, [0] * 4),
        ]

    def test_nothing_grows(self, workers: Workers, watcher: Store) -> None:
        def work(group: Group) -> Any:
            counts = []
            for turn in range(30):
                group.barrier()
                group.allgather(b"x" * 1000)
                group.broadcast(turn)
                if group.rank == 0:
                    group.send(1, b"x")
                elif group.rank == 1:
                    group.recv(0)
                counts.append(len(group.broadcast(keys(watcher, workers.name) if group.rank == 0 else None)))
            return counts

        for counts in workers.all(3, work):
            # the run, three seats, two arrivals, the release; the receipt, and a message that may wait
            assert max(counts) <= 9

    def test_messages_arrive_in_order(self, workers: Workers) -> None:
        def send(group: Group) -> None:
            for number in range(100):
                group.send(1, b"%d" % number)
            group.send(1, b"")
            group.send(1, b"y" * 1_500_000)
            assert group.recv(1) == b"thanks"

        def receive(group: Group) -> Any:
            found = [group.recv(0) for _ in range(102)]
            group.send(0, b"thanks")
            return found == [*(b"%d" % number for number in range(100)), b"", b"y" * 1_500_000]

        assert workers.together(send, receive) == [None, True]

    def test_a_message_is_there_though_its_sender_has_left(self, workers: Workers, watcher: Store) -> None:
        def send(group: Group) -> None:
            group.send(1, b"last words")

        def receive(group: Group) -> bytes:
            until_gone(watcher, workers.name, "/seat/0")
            return group.recv(0)

        assert workers.together(send, receive) == [None, b"last words"]

    def test_a_sender_waits_for_a_receiver_that_does_not_receive(self, workers: Workers) -> None:
        def send(group: Group) -> Any:
            sent = 0
            try:
                for _ in range(100):
                    group.send(1, b"x", timeout=1)
                    sent += 1
            except DeadlineError as error:
                group.barrier()
                return sent, error.context["ranks"]

        def receive(group: Group) -> int:
            group.barrier()
            return len([group.recv(0) for _ in range(64)])

        assert workers.together(send, receive) == [(64, (1,)), 64]

    def test_different_calls_are_told_to_all(self, workers: Workers) -> None:
        def work(group: Group) -> Any:
            with pytest.raises(CollectiveMismatchError, match=r"barrier: 0, 2; broadcast from 2: 1"):
                group.barrier() if group.rank != 1 else group.broadcast(root=2)
            return group.allgather(group.rank)

        assert workers.all(3, work) == [[0, 1, 2]] * 3

    def test_a_sum_beyond_64_bits_is_told_to_all(self, workers: Workers) -> None:
        def work(group: Group) -> Any:
            with pytest.raises(CollectiveMismatchError, match="reduce sum to 0"):
                group.reduce(2**63)
            return group.reduce(2**63, "max")

        assert workers.all(2, work) == [2**63, None]

    def test_calls_that_can_not_be_right_are_refused_at_once(self, workers: Workers) -> None:
        def work(group: Group) -> Any:
            for call in (
                lambda: group.barrier(ranks=[1]),
                lambda: group.barrier(ranks=[0, 2]),
                lambda: group.barrier(ranks=[]),
                lambda: group.broadcast(1, root=2),
                lambda: group.gather(1, root=1, ranks=[0]),
                lambda: group.broadcast(object()),
                lambda: group.allgather(2**64),
                lambda: group.reduce("1"),  # type: ignore[arg-type]
                lambda: group.reduce(1, "product"),  # type: ignore[arg-type]
                lambda: group.send(0, b""),
                lambda: group.recv(2),
            ):
                if group.rank == 0:
                    with pytest.raises(ConfigurationError):
                        call()
            return group.allgather(group.rank)

        assert workers.all(2, work) == [[0, 1]] * 2
