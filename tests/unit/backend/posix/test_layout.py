from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

if sys.platform != "linux":
    pytest.skip("the POSIX backend is for Linux only", allow_module_level=True)

from trunkline.backend.contract import Operation, Posting
from trunkline.backend.plugins.posix.layout import CALL_PIECES, Layout, lay_out

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[int, int, int, int]
"""File, offset, address, length."""


def laid_out(rows: Sequence[Row], call_bytes: int = 1 << 20, block: Sequence[int] = (0, 0), memory: int = 1) -> Layout:
    file, offset, address, length = np.array(rows, np.uint64).reshape(-1, 4).T.copy()
    none = np.zeros(len(rows), np.int32)
    posting = Posting(Operation.READ, address, offset, length, none, none)
    alignment = np.full(len(block), memory, np.int64)
    return lay_out(posting, file.astype(np.int32), np.array(block, np.int64), alignment, call_bytes)


def bytes_of_calls(layout: Layout) -> dict[tuple[int, int], int]:
    """Return which address each byte of a file goes to."""
    found = {}
    for call in range(len(layout.length)):
        at = int(layout.offset[call])
        for address, length in layout.pieces[layout.first[call] : layout.first[call + 1]].tolist():
            for byte in range(length):
                found[int(layout.file[call]), at + byte] = address + byte
            at += length
        assert at == layout.offset[call] + layout.length[call]
    return found


@st.composite
def apart(draw: st.DrawFn) -> list[Row]:
    """Rows that don't overlap in their files, often adjacent there, sometimes in memory too, in any order."""
    rows: list[Row] = []
    at, address = [0, 0], 1000
    for _ in range(draw(st.integers(0, 12))):
        file, length = draw(st.integers(0, 1)), draw(st.integers(0, 40))
        at[file] += draw(st.sampled_from([0, 0, 1, 16]))
        address += draw(st.sampled_from([0, 0, 3]))
        rows.append((file, at[file], address, length))
        at[file] += length
        address += length
    return draw(st.permutations(rows))


@given(rows=apart(), call_bytes=st.sampled_from([16, 32, 1 << 20]), block=st.sampled_from([0, 1, 8, 16]))
def test_every_byte_goes_where_its_row_says(rows: list[Row], call_bytes: int, block: int) -> None:
    layout = laid_out(rows, call_bytes, (0, block))
    expected = {
        (file, offset + byte): address + byte for file, offset, address, length in rows for byte in range(length)
    }
    assert bytes_of_calls(layout) == expected
    assert (layout.length <= call_bytes).all()
    assert sum(layout.length.tolist()) == sum(row[3] for row in rows)
    straight = ~layout.bounce.astype(bool) & (layout.file == 1)
    if block:
        assert not (layout.offset[straight] % block).any()
        assert not (layout.length[straight] % block).any()


@given(rows=apart(), call_bytes=st.sampled_from([16, 1 << 20]), data=st.data())
def test_completed_counts_the_leading_rows_whose_calls_are_all_done(
    rows: list[Row], call_bytes: int, data: st.DataObject
) -> None:
    layout = laid_out(rows, call_bytes)
    size = len(layout.length)
    done = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), np.uint8)
    arrived = {
        (int(layout.file[call]), int(layout.offset[call]) + byte)
        for call in np.flatnonzero(done).tolist()
        for byte in range(int(layout.length[call]))
    }
    count = 0
    for file, offset, _, length in rows:
        if any((file, offset + byte) not in arrived for byte in range(length)):
            break
        count += 1
    assert layout.completed(done) == count


def test_shuffled_rows_of_a_file_become_few_calls() -> None:
    order = np.random.default_rng(0).permutation(5000).tolist()
    layout = laid_out([(0, 100 * place, 1_000_000 + 101 * row, 100) for row, place in enumerate(order)])
    assert len(layout.length) == 5
    assert np.diff(layout.first).tolist() == [CALL_PIECES] * 4 + [5000 - 4 * CALL_PIECES]


def test_what_is_adjacent_on_both_sides_is_one_piece() -> None:
    layout = laid_out([(0, 50, 1050, 50), (0, 0, 1000, 50), (0, 100, 1100, 7)])
    assert layout.pieces.tolist() == [[1000, 107]]


def test_direct_calls_are_cut_only_where_the_file_allows_it() -> None:
    rows = [(0, 3 * row, 10_000 + 5 * row, 3) for row in range(4096)]  # 12 KiB in pieces of 3 bytes
    layout = laid_out(rows, 1 << 20, (4096,))
    assert layout.bounce.tolist() == [1]
    assert layout.length.tolist() == [3 * 4096]


def test_memory_that_is_not_aligned_is_bounced() -> None:
    rows = [(0, 0, 8192, 4096), (0, 8192, 8200, 4096)]
    assert laid_out(rows, 1 << 20, (512,), 512).bounce.tolist() == [0, 1]
    assert laid_out(rows, 1 << 20, (512,), 8).bounce.tolist() == [0, 0]
