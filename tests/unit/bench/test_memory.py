from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trunkline.bench.memory import PAGE, Buffers, span_of


@given(buffers=st.integers(1, 3), lanes=st.integers(1, 4), block_size=st.integers(1, 5000), count=st.integers(1, 5))
def test_blocks_lie_within_the_buffers_and_never_on_each_other(
    buffers: int, lanes: int, block_size: int, count: int
) -> None:
    memory = Buffers(buffers, lanes, block_size * count)
    rows = np.concatenate([memory.places.descriptors(lane, block_size, count).rows for lane in range(lanes)])
    rows = rows[np.argsort(rows[:, 0])].astype(np.int64)
    assert (rows[1:, 0] >= rows[:-1, 0] + rows[:-1, 1]).all()
    ranges = [(array.ctypes.data, array.ctypes.data + array.nbytes) for array in memory.arrays]
    assert all(any(start <= row[0] and row[0] + row[1] <= end for start, end in ranges) for row in rows)


def test_views_are_the_memory_that_descriptors_describe() -> None:
    memory = Buffers(2, 3, 4 * 100)
    for lane in range(3):
        views = memory.blocks(lane, 100, 4)
        assert [view.ctypes.data for view in views] == memory.places.descriptors(lane, 100, 4).rows[:, 0].tolist()
        assert {view.nbytes for view in views} == {100}


def test_no_lanes_take_no_memory() -> None:
    assert Buffers(2, 0, 1 << 40).arrays == []


def test_huge_pages_can_be_asked_for() -> None:
    assert Buffers(1, 1, 4 << 20, huge=True).arrays[0].nbytes == 4 << 20


def test_lanes_begin_on_pages() -> None:
    assert span_of(1) == PAGE
    assert span_of(PAGE + 1) == 2 * PAGE
