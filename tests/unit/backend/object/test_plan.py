from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.backend.contract import Operation, Posting
from trunkline.backend.plugins.object import plan as planning
from trunkline.backend.plugins.object.plan import MOST_PARTS, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from numpy.typing import NDArray

KEYS = ["first", "second", "third"]
CLOSE = 30
"""How far apart ranges may lie to be read at once here."""


@pytest.fixture(autouse=True, scope="module")
def closeness() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "COALESCE", CLOSE)
        yield


def plan_of(
    operation: Operation, rows: list[tuple[int, int, int, int]], base: int = 1 << 20, part_size: int = 100
) -> Plan:
    """Return a plan of rows: local offset, object, remote offset, length."""
    table = np.array(rows, np.uint64).reshape(-1, 4)
    slots = np.zeros(len(rows), np.int32)
    posting = Posting(
        operation, table[:, 0] + np.uint64(base), table[:, 2].copy(), table[:, 3].copy(), slots, slots.copy()
    )
    return Plan(posting, KEYS, table[:, 1].astype(np.int64), part_size)


def parts_of(plan: Plan) -> list[tuple[int, int, int]]:
    return list(zip(plan.part_object.tolist(), plan.part_start.tolist(), plan.part_end.tolist(), strict=True))


def test_joins_ranges_that_lie_close_together_and_cuts_long_ones() -> None:
    far = 1000
    plan = plan_of(
        Operation.READ,
        [(0, 1, 50, 10), (10, 1, 60, 10), (20, 0, 0, 250), (500, 1, far, 10), (600, 1, far + 10 + CLOSE, 10)],
    )
    assert parts_of(plan) == [(0, 0, 100), (0, 100, 200), (0, 200, 250), (1, 50, 70), (1, far, far + 20 + CLOSE)]
    assert plan.part_bytes.tolist() == [100, 100, 50, 20, 20]
    assert plan.jobs.tolist() == [0, 1, 2, 3, 4, 5]


def test_reads_overlapping_rows_once() -> None:
    plan = plan_of(Operation.READ, [(0, 0, 0, 80), (100, 0, 20, 30), (200, 0, 60, 40)])
    assert parts_of(plan) == [(0, 0, 100)]


def test_writes_objects_whole_by_one_job_each() -> None:
    plan = plan_of(Operation.WRITE, [(0, 1, 100, 150), (300, 0, 0, 10), (400, 1, 0, 100)])
    assert not plan.obstacle
    assert parts_of(plan) == [(0, 0, 10), (1, 0, 100), (1, 100, 200), (1, 200, 250)]
    assert plan.jobs.tolist() == [0, 1, 4]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([(0, 0, 10, 10)], "bytes 0 to 9 of object 'first' are missing"),
        ([(0, 0, 0, 10), (10, 1, 0, 10), (20, 1, 15, 10)], "bytes 10 to 14 of object 'second' are missing"),
        ([(0, 2, 0, 10), (20, 2, 8, 10)], "bytes 8 to 9 of object 'third' are written twice"),
    ],
)
def test_refuses_to_write_objects_in_part(rows: list[tuple[int, int, int, int]], what: str) -> None:
    plan = plan_of(Operation.WRITE, rows)
    assert plan.obstacle.startswith(what)
    assert "objects are written whole" in plan.obstacle


def test_an_upload_has_no_more_parts_than_a_store_takes() -> None:
    plan = plan_of(Operation.WRITE, [(0, 0, 0, 100 << 30)], part_size=8 << 20)
    assert len(plan.part_object) <= MOST_PARTS
    assert plan.chunk.tolist() == [11 << 20]
    assert parts_of(plan)[-1][2] == 100 << 30


def test_ranges_too_far_apart_to_be_counted_are_refused() -> None:
    posting_rows = [(0, 0, 0, 8), (8, 0, 1 << 61, 8), (16, 1, 0, 8), (24, 1, 1 << 61, 8)]
    assert plan_of(Operation.READ, posting_rows).obstacle == (
        "its objects' ranges are too far apart for one transfer: make several of it"
    )
    assert not plan_of(Operation.READ, posting_rows[1:]).obstacle


def test_nothing_to_move() -> None:
    for operation in Operation:
        plan = plan_of(operation, [])
        assert len(plan.part_object) == 0
        assert plan.completed(np.zeros(0, np.bool_)) == 0


def test_counts_the_leading_rows_whose_parts_have_all_arrived() -> None:
    plan = plan_of(Operation.READ, [(0, 1, 0, 150), (200, 0, 0, 90), (300, 1, 150, 30)])
    assert parts_of(plan) == [(0, 0, 90), (1, 0, 100), (1, 100, 180)]
    assert plan.completed(np.array([True, True, False])) == 0
    assert plan.completed(np.array([False, True, True])) == 1
    assert plan.completed(np.array([True, True, True])) == 3


@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 400), st.integers(0, 90)), max_size=12),
    seed=st.integers(0, 99),
)
def test_scatters_what_was_read_to_where_it_belongs(rows: list[tuple[int, int, int]], seed: int) -> None:
    objects = np.random.default_rng(seed).integers(0, 256, (len(KEYS), 500), np.uint8)
    memory = np.zeros(100 * max(1, len(rows)), np.uint8)
    expected = memory.copy()
    for number, (which, offset, length) in enumerate(rows):
        expected[100 * number : 100 * number + length] = objects[which, offset : offset + length]
    plan = plan_of(
        Operation.READ,
        [(100 * number, *row) for number, row in enumerate(rows)],
        base=memory.ctypes.data,
        part_size=64,
    )
    for part, (which, start, end) in enumerate(parts_of(plan)):
        plan.scatter(part, objects[which, start:end].tobytes())
    np.testing.assert_array_equal(memory, expected)
    assert int(plan.part_bytes.sum()) == plan.total == sum(length for _, _, length in rows)


@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_gathers_what_is_written_from_where_it_lies(lengths: list[int], order: Random) -> None:
    rows = list(range(len(lengths)))
    order.shuffle(rows)
    memory = np.random.default_rng(len(lengths)).integers(0, 256, 100 * len(lengths), np.uint8)
    begins = np.cumsum([0, *lengths])
    plan = plan_of(
        Operation.WRITE,
        [(100 * number, 0, int(begins[number]), lengths[number]) for number in rows],
        base=memory.ctypes.data,
        part_size=64,
    )
    assert plan.obstacle == ""
    sent: NDArray[np.uint8] = np.concatenate([plan.gather(part) for part in range(len(plan.part_object))])
    expected = np.concatenate([memory[100 * n : 100 * n + length] for n, length in enumerate(lengths)])
    np.testing.assert_array_equal(sent, expected)


def test_copies_large_pieces_too() -> None:
    memory = np.zeros(300_000, np.uint8)
    data = np.random.default_rng(1).integers(0, 256, 300_000, np.uint8)
    plan = plan_of(
        Operation.READ,
        [(0, 0, 150_000, 150_000), (150_000, 0, 0, 150_000)],
        base=memory.ctypes.data,
        part_size=1 << 20,
    )
    plan.scatter(0, data)
    np.testing.assert_array_equal(memory, np.roll(data, 150_000))
