from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trunkline.errors import DescriptorError
from trunkline.memory.descriptor import MAX_BLOCKS, DescriptorList, coalesce, split
from trunkline.memory.kind import MemoryKind
from trunkline.testing.strategies import neighbours, segments, strided_lists

Rows = NDArray[np.uint64]
DRAM = MemoryKind.DRAM
TOP = 2**64 - 1


def plain(*rows: tuple[int, int, int]) -> Rows:
    return np.array(rows, dtype=np.uint64).reshape(-1, 3)


def blocks_of(descriptors: DescriptorList) -> list[tuple[int, ...]]:
    """The blocks, by the definition of a strided row."""
    if not descriptors.is_strided:
        return [tuple(row) for row in descriptors.rows.tolist()]
    return [
        (address + number * stride, length, device)
        for address, length, device, stride, count in descriptors.rows.tolist()
        for number in range(count)
    ]


class TestOf:
    @pytest.mark.parametrize("dtype", [np.uint64, np.int64, np.int32, np.uint8, ">u8"])
    def test_takes_any_integer_dtype(self, dtype: Any) -> None:
        descriptors = DescriptorList.of(DRAM, np.array([[1, 2, 3], [4, 5, 6]], dtype=dtype))
        assert descriptors.rows.dtype == np.uint64
        assert descriptors.rows.tolist() == [[1, 2, 3], [4, 5, 6]]

    @pytest.mark.parametrize("order", ["C", "F"])
    def test_rows_are_a_frozen_c_contiguous_copy(self, order: Literal["C", "F"]) -> None:
        source = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint64, order=order)
        descriptors = DescriptorList.of(DRAM, source)
        source[:] = 0
        assert descriptors[0] == (1, 2, 3)
        assert descriptors.rows.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            descriptors.rows[0, 0] = 7

    @pytest.mark.parametrize(
        "rows",
        [
            [(TOP - 5, 5, 0)],
            [(TOP - 5, 5, 0), (1, 1, 1)],  # numpy would make floats of these
            [(np.uint64(5), 4096, 0)],  # and of these
            [(1, 2**63 - 1, TOP)],
            ([1, 2, 3], [4, 5, 6]),
        ],
    )
    def test_lists_keep_their_exact_values(self, rows: Any) -> None:
        assert DescriptorList.of(DRAM, rows).rows.tolist() == [list(map(int, row)) for row in rows]

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([], r"shape \(N, 3\)"),
            (np.empty((0, 3), np.uint64), r"N at least 1; got shape \(0, 3\)"),
            ([1, 2, 3], r"got shape \(3,\)"),
            ([(1, 2)], r"got shape \(1, 2\)"),
            ([(1, 2, 3, 4)], r"got shape \(1, 4\)"),
            ([(1, 2, 3), (1, 2)], "rows of equal length"),
            (np.ones((2, 3)), "integers; got dtype float64"),
            ([(1.0, 2, 3)], r"row 0 of 1 .* not an integer .*\(1.0, 2, 3\)"),
            (np.ones((2, 3), bool), "integers; got dtype bool"),
            ([("1", 2, 3)], "integers; got dtype"),
            ([(5, 1, 0), (2**64, 1, 0)], rf"row 1 of 2 .* not an integer .*\({2**64}, 1, 0\)"),
            ([(5, 1, 0), (-1, 2**63, 0)], r"row 1 of 2 .* not an integer"),
            ([(None, 1, 0)], "not an integer"),
            ([(0, 1, 0), (1, 1, 0), (-7, 1, 0)], r"row 2 of 3 DRAM .* negative number: .*\(-7, 1, 0\)"),
            (np.array([[1, -1, 0]], np.int8), "row 0 of 1 .* negative number"),
            ([(0, 1, 0), (9, 0, 4)], r"row 1 of 2 .* length of 0: \(address, length, device\) = \(9, 0, 4\)"),
            ([(0, 2**63, 0)], "2\\^63 bytes or more"),
            ([(TOP, 1, 0)], "ends beyond 2\\^64 - 1"),
            ([(2**63 + 1, 2**63 - 1, 0)], "ends beyond 2\\^64 - 1"),
            ([(0, 4, 0, 8, 0)], "count of 0"),
            ([(0, 4, 0, 3, 2)], "overlap"),
            ([(0, 4, 0, 2**63, 4)], "last block that ends beyond"),
            ([(TOP - 12, 4, 0, 8, 1), (TOP - 11, 4, 0, 8, 2)], "row 1 of 2 .* last block that ends beyond"),
            ([(0, 1, 0, 1, MAX_BLOCKS + 1)], f"more than {MAX_BLOCKS} blocks"),
            ([(0, 1, 0, 1, MAX_BLOCKS), (0, 1, 0, 1, 1)], f"stand for {MAX_BLOCKS + 1} blocks"),
        ],
    )
    def test_refuses(self, rows: Any, message: str) -> None:
        with pytest.raises(DescriptorError, match=message):
            DescriptorList.of(DRAM, rows)

    def test_errors_say_where_in_numbers(self) -> None:
        with pytest.raises(DescriptorError) as caught:
            DescriptorList.of(MemoryKind.FILE, [(0, 1, 0), (1, 0, 3)])
        assert caught.value.context == {"kind": "FILE", "row": 1, "values": (1, 0, 3)}
        assert isinstance(caught.value, ValueError)

    def test_takes_the_extremes(self) -> None:
        DescriptorList.of(DRAM, [(TOP - 12, 4, 0, 8, 2)])  # the last byte is at 2^64 - 2
        DescriptorList.of(DRAM, [(0, 4, 0, 0, 1)])  # one block needs no stride
        DescriptorList.of(DRAM, [(0, 1, 0, 1, MAX_BLOCKS)])


class TestValue:
    def test_sums_are_exact_beyond_64_bits(self) -> None:
        rows = [(0, 2**63 - 1, 0)] * 5
        assert DescriptorList.of(DRAM, rows).total_bytes == 5 * (2**63 - 1)

    @given(strided_lists())
    def test_count_and_total_are_those_of_the_blocks(self, descriptors: DescriptorList) -> None:
        blocks = blocks_of(descriptors)
        assert descriptors.count == len(blocks)
        assert descriptors.total_bytes == sum(length for _, length, _ in blocks)
        assert len(descriptors) == len(descriptors.rows)

    def test_equality_and_hash_are_by_value(self) -> None:
        one, same = DescriptorList.of(DRAM, [(1, 2, 3)]), DescriptorList.of(DRAM, plain((1, 2, 3)))
        assert one == same
        assert hash(one) == hash(same)
        assert one != DescriptorList.of(MemoryKind.VRAM, [(1, 2, 3)])
        assert one != DescriptorList.of(DRAM, [(1, 2, 4)])
        assert one != DescriptorList.of(DRAM, [(1, 2, 3, 2, 1)])
        assert one != "other"

    def test_rows_are_read_as_tuples_of_ints(self) -> None:
        descriptors = DescriptorList.of(DRAM, [(1, 2, 3), (4, 5, 6)])
        assert list(descriptors) == [(1, 2, 3), (4, 5, 6)]
        assert type(descriptors[np.int64(-1)][0]) is int
        with pytest.raises(IndexError):
            descriptors[2]

    def test_repr(self) -> None:
        assert repr(DescriptorList.of(DRAM, [(1, 2, 3)])) == "<DescriptorList DRAM: 1 rows, 2 bytes>"
        assert repr(DescriptorList.of(DRAM, [(1, 2, 3, 4, 5)])) == ("<DescriptorList DRAM: 1 rows, 5 blocks, 10 bytes>")


class TestBlocks:
    @given(strided_lists())
    def test_expand(self, descriptors: DescriptorList) -> None:
        expanded = descriptors.expand()
        assert list(expanded) == blocks_of(descriptors)
        assert expanded.kind == descriptors.kind
        assert expanded.expand() is expanded

    @given(strided_lists() | segments().map(lambda rows: DescriptorList.of(DRAM, rows)), st.data())
    def test_select(self, descriptors: DescriptorList, data: st.DataObject) -> None:
        blocks = blocks_of(descriptors)
        indices = data.draw(st.lists(st.integers(0, len(blocks) - 1), min_size=1, max_size=20))
        dtype = data.draw(st.sampled_from([np.int64, np.uint64, np.int32, np.uint8]))
        selected = descriptors.select(np.array(indices, dtype=dtype))
        assert list(selected) == [blocks[index] for index in indices]
        assert not selected.is_strided
        assert selected.rows.flags.c_contiguous
        assert not selected.rows.flags.writeable

    @pytest.mark.parametrize(
        ("indices", "message"),
        [
            ([0, 6], r"index 6 \(at position 1\) is outside this list of 6 DRAM blocks; indices go from 0 to 5"),
            ([5, -1, -2], r"index -1 \(at position 1\)"),
            (np.array([2**64 - 1], np.uint64), f"index {2**64 - 1} "),
            ([0.0], "dtype float64"),
            ([True], "dtype bool"),
            ([[0]], r"shape \(1, 1\)"),
            ([], "at least one index"),
            (3, r"shape \(\)"),
            ([[0], [1, 2]], "1-D integer array"),
        ],
    )
    @pytest.mark.parametrize("rows", [[(0, 4, 0, 8, 4), (100, 4, 1, 4, 2)], [(i, 1, 0) for i in range(6)]])
    def test_select_refuses(self, rows: Any, indices: Any, message: str) -> None:
        with pytest.raises(DescriptorError, match=message):
            DescriptorList.of(DRAM, rows).select(indices)

    def test_select_expands_only_what_is_asked_for(self) -> None:
        descriptors = DescriptorList.of(DRAM, [(0, 4, 0, 8, MAX_BLOCKS)])
        assert list(descriptors.select([MAX_BLOCKS - 1])) == [(8 * (MAX_BLOCKS - 1), 4, 0)]


def merged_by_definition(sides: list[Rows], labels: list[list[int]]) -> list[int]:
    """The first row of each merged row, one pair of neighbours at a time."""
    starts = [0]
    for row in range(1, len(sides[0])):
        touching = all(
            side[row - 1][0] + side[row - 1][1] == side[row][0] and side[row - 1][2] == side[row][2] for side in sides
        )
        if not touching or any(label[row - 1] != label[row] for label in labels):
            starts.append(row)
    return starts


def bytes_of(rows: Rows) -> list[tuple[int, int]]:
    return [(device, address + i) for address, length, device in rows.tolist() for i in range(length)]


@st.composite
def paired(draw: st.DrawFn) -> list[Rows]:
    """Two sides with equal lengths, both with many neighbours."""
    near = draw(neighbours())
    far, end = [], 5000
    for _, length, _ in near.tolist():
        end += draw(st.sampled_from((0, 0, 0, 3)))
        far.append((end, length, 7))
        end += length
    return [near, plain(*far)]


class TestCoalesce:
    @given(paired(), st.data())
    def test_merges_exactly_what_touches_on_every_side(self, sides: list[Rows], data: st.DataObject) -> None:
        count = len(sides[0])
        labels = [data.draw(st.lists(st.sampled_from((3, 3, 3, 4)), min_size=count, max_size=count))]
        merged, starts = coalesce(sides, [np.array(labels[0])])
        assert starts.tolist() == merged_by_definition(sides, labels)
        for before, after in zip(sides, merged, strict=True):
            assert bytes_of(after) == bytes_of(before)
            assert after.flags.c_contiguous

    @given(paired(), st.integers(1, 20))
    def test_max_length(self, sides: list[Rows], max_length: int) -> None:
        merged, starts = coalesce(sides, max_length=max_length)
        for before, after in zip(sides, merged, strict=True):
            assert bytes_of(after) == bytes_of(before)
        ends = [*starts.tolist()[1:], len(sides[0])]
        for first, end, row in zip(starts.tolist(), ends, merged[0].tolist(), strict=True):
            assert end == first + 1 or row[1] <= max_length

    def test_equal_rows_fill_max_length(self) -> None:
        rows = plain(*((i * 4, 4, 0) for i in range(10)))
        merged, starts = coalesce([rows], max_length=16)
        assert merged[0].tolist() == [[0, 16, 0], [16, 16, 0], [32, 8, 0]]
        assert starts.tolist() == [0, 4, 8]

    def test_other_device_or_backward_order_is_kept_apart(self) -> None:
        apart = plain((0, 4, 0), (4, 4, 1), (12, 4, 1), (8, 4, 1))
        merged, starts = coalesce([apart])
        assert merged[0] is apart
        assert starts.tolist() == [0, 1, 2, 3]

    def test_inputs_stay_as_they_were(self) -> None:
        rows = DescriptorList.of(DRAM, [(0, 4, 0), (4, 4, 0)]).rows
        merged, _ = coalesce([rows, rows])
        assert rows.tolist() == [[0, 4, 0], [4, 4, 0]]
        assert merged[0].tolist() == merged[1].tolist() == [[0, 8, 0]]

    def test_one_row(self) -> None:
        merged, starts = coalesce([plain((1, 2, 3))], [np.array([1])], max_length=1)
        assert merged[0].tolist() == [[1, 2, 3]]
        assert starts.tolist() == [0]


class TestSplit:
    @given(paired(), st.integers(1, 12))
    def test_pieces_are_the_rows_cut(self, sides: list[Rows], max_length: int) -> None:
        pieces, origin = split(sides, max_length)
        for before, after in zip(sides, pieces, strict=True):
            assert bytes_of(after) == bytes_of(before)
            assert max(after[:, 1].tolist()) <= max_length
            assert before[origin, 2].tolist() == after[:, 2].tolist()
            same = [left == right for left, right in pairwise(origin.tolist())]
            for (left, right), cut in zip(pairwise(after.tolist()), same, strict=True):
                assert not cut or (left[1] == max_length and left[0] + left[1] == right[0])
        expected = [row for row, size in enumerate(sides[0][:, 1].tolist()) for _ in range(-(-size // max_length))]
        assert origin.tolist() == expected

    def test_nothing_to_cut(self) -> None:
        rows = plain((0, 4, 0), (9, 3, 0))
        pieces, origin = split([rows], 4)
        assert pieces[0] is rows
        assert origin.tolist() == [0, 1]

    @pytest.mark.parametrize(
        "rows",
        [
            [(0, 2**63 - 1, 0)],
            [(0, MAX_BLOCKS, 0), (0, 1, 0)],
            [(0, 2**63 - 1, 0), (0, 2**63 - 1, 0), (0, 3, 0)],  # 1 piece in all, in 64 bits
        ],
    )
    def test_too_many_pieces(self, rows: list[tuple[int, int, int]]) -> None:
        with pytest.raises(DescriptorError, match="pieces of 1 bytes"):
            split([plain(*rows)], 1)
