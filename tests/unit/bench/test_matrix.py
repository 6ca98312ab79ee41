from __future__ import annotations

import ctypes
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.bench.kv.ranks import CopyEngine, Threads, run_ranks
from tests.unit.bench.sample import make_row

from trunkline.bench.matrix import MatrixWorker, Shape, find_outliers, schedule
from trunkline.bench.options import Options
from trunkline.bench.roles import Pair

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trunkline.bench.result import Row


def rows_of(size: int, slow: Mapping[tuple[int, int], float]) -> list[Row]:
    """Return a row for each pair of some workers: 10 GB/s, give or take a little, but for some of them."""
    pairs = itertools.permutations(range(size), 2)
    return [
        make_row(initiator=a, target=b, bandwidth_gb_s=slow.get((a, b), 10.0 + 0.1 * ((a + b) % 3)), pairs=1)
        for a, b in pairs
    ]


@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=12))
def test_every_pair_meets_both_ways_and_shares_no_host_with_another(hosts: list[str]) -> None:
    rounds = schedule(hosts)
    assert sorted(itertools.chain(*rounds)) == [Pair(*pair) for pair in itertools.permutations(range(len(hosts)), 2)]
    for pairs in rounds:
        busy = [host for pair in pairs for host in {hosts[rank] for rank in pair}]
        assert pairs
        assert len(busy) == len(set(busy))


@pytest.mark.parametrize(("size", "expected"), [(2, 2), (7, 14), (8, 14), (64, 126)])
def test_workers_of_different_hosts_need_the_fewest_rounds(size: int, expected: int) -> None:
    assert len(schedule([str(rank) for rank in range(size)])) == expected


def test_workers_of_one_host_meet_one_pair_after_the_other() -> None:
    assert all(len(pairs) == 1 for pairs in schedule(["here"] * 5))


def test_a_slow_pair_is_named() -> None:
    slow, blamed = find_outliers(rows_of(4, {(1, 2): 3.0}))
    assert [(row.initiator, row.target) for row in slow] == [(1, 2)]
    assert blamed == []


def test_a_worker_that_is_slow_with_all_is_blamed() -> None:
    slow, blamed = find_outliers(rows_of(5, {pair: 2.0 for pair in itertools.permutations(range(5), 2) if 3 in pair}))
    assert len(slow) == 8
    assert blamed == [3]


def test_the_slowest_comes_first() -> None:
    slow, _ = find_outliers(rows_of(5, {(0, 1): 4.0, (2, 3): 1.0}))
    assert [row.bandwidth_gb_s for row in slow] == [1.0, 4.0]


def test_what_differs_by_no_more_than_the_others_is_no_outlier() -> None:
    scattered = {pair: 4.0 + number for number, pair in enumerate(itertools.permutations(range(4), 2))}
    assert find_outliers(rows_of(4, scattered)) == ([], [])


def test_few_pairs_tell_nothing() -> None:
    assert find_outliers(rows_of(2, {(0, 1): 0.1})) == ([], [])


@pytest.mark.parametrize("op_type", ["READ", "WRITE"])
def test_a_byte_that_changes_on_the_way_is_found(op_type: str) -> None:
    """The last of the blocks that rank 1 moves has another byte."""

    def spoil(sinks: list[list[int]]) -> None:
        ctypes.c_uint8.from_address(sinks[-1][0] + 5).value ^= 1

    options = Options(
        op_type=op_type, check_consistency=True, num_iter=1, pipeline_depth=2, warmup_iter=0, limit_gbps=1.0
    )
    found: list[tuple[Row, str]] = []

    def work(group: Threads) -> None:
        worker = MatrixWorker(
            group,
            options,
            Shape(4096, 3),
            measured=lambda row, first: found.append((row, first)),
            stepping=lambda _, __: None,
        )
        worker.run(CopyEngine(spoil if group.rank == 1 else None), f"rank-{group.rank}", lambda _: None)

    run_ranks(3, work)
    assert len(found) == 6
    wrong = [(row, first) for row, first in found if row.wrong]
    assert [(row.initiator, row.wrong) for row, _ in wrong] == [(1, 1)]
    assert "block 2 of 4,096 bytes differs first at offset 5" in wrong[0][1]
