from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trunkline.errors import NotRegisteredError
from trunkline.memory.kind import MemoryKind
from trunkline.memory.section import EMPTY, NO_SLOT, Section, SegmentTable, find_rows

if TYPE_CHECKING:
    from random import Random

    from numpy.typing import NDArray

Row = tuple[int, int, int]
TOP = 2**64 - 1


def rows(*table: Row) -> NDArray[np.uint64]:
    return np.array(table, dtype=np.uint64).reshape(-1, 3)


def slots(*numbers: int) -> NDArray[np.int32]:
    return np.array(numbers, dtype=np.int32)


def table_of(segments: list[Row]) -> SegmentTable:
    return EMPTY.add(rows(*segments), np.arange(100, 100 + len(segments), dtype=np.int32))


def covers(segment: Row, wanted: Row) -> bool:
    return segment[2] == wanted[2] and segment[0] <= wanted[0] and wanted[0] + wanted[1] <= segment[0] + segment[1]


small = st.tuples(st.integers(0, 30), st.integers(1, 15), st.integers(0, 2))


class TestCovering:
    @given(st.lists(small, max_size=12), st.lists(small, min_size=1, max_size=12))
    @example([(0, 10, 0), (10, 10, 0)], [(5, 10, 0), (0, 10, 0), (10, 10, 0), (19, 1, 0), (20, 1, 0)])
    @example([(0, 10, 1), (2, 3, 1), (0, 30, 2)], [(4, 4, 1), (4, 4, 0), (4, 4, 2), (0, 1, 3)])
    @example([(5, 5, 0), (5, 9, 0), (5, 5, 0), (4, 1, 0)], [(5, 9, 0), (6, 9, 0), (4, 2, 0)])
    def test_finds_a_segment_exactly_where_one_covers_the_range(self, segments: list[Row], wanted: list[Row]) -> None:
        found = table_of(segments).covering(rows(*wanted))
        assert found.dtype == np.int32
        for slot, row in zip(found.tolist(), wanted, strict=True):
            if slot == NO_SLOT:
                assert not any(covers(segment, row) for segment in segments)
            else:
                assert covers(segments[slot - 100], row)

    def test_adjacent_segments_do_not_join(self) -> None:
        table = table_of([(0, 10, 0), (10, 10, 0)])
        assert table.covering(rows((9, 2, 0), (9, 1, 0), (10, 1, 0))).tolist() == [NO_SLOT, 100, 101]

    def test_ends_of_the_address_space(self) -> None:
        table = table_of([(0, 1, 0), (TOP - 10, 10, TOP)])
        wanted = rows((TOP - 1, 1, TOP), (TOP - 10, 10, TOP), (TOP - 11, 2, TOP), (0, 1, 0), (0, 1, TOP))
        assert table.covering(wanted).tolist() == [101, 101, NO_SLOT, 100, NO_SLOT]

    def test_an_empty_table_covers_nothing(self) -> None:
        assert EMPTY.covering(rows((0, 1, 0), (5, 1, 9))).tolist() == [NO_SLOT, NO_SLOT]

    def test_many_segments_and_devices(self) -> None:
        count = 10_000
        table = np.zeros((count, 3), np.uint64)
        table[:, 0] = np.arange(count) * 4096
        table[:, 1] = 4096
        table[:, 2] = np.arange(count) % 64
        shuffled = np.random.default_rng(1).permutation(count)
        found = EMPTY.add(table[shuffled], shuffled.astype(np.int32)).covering(table)
        assert np.array_equal(found, np.arange(count))


class TestTable:
    def test_is_sorted_by_device_and_address_with_its_slots(self) -> None:
        table = table_of([(9, 1, 1), (5, 2, 1), (7, 3, 0)])
        assert table.segments.tolist() == [[7, 3, 0], [5, 2, 1], [9, 1, 1]]
        assert table.slots.tolist() == [102, 101, 100]
        assert repr(table) == "<SegmentTable: 3 segments on 2 devices>"

    def test_changes_make_new_tables(self) -> None:
        one = table_of([(0, 10, 0)])
        two = one.add(rows((20, 10, 0)), slots(7))
        less = two.remove(slots(100))
        assert (len(EMPTY), len(one), len(two), len(less)) == (0, 1, 2, 1)
        assert less.covering(rows((0, 1, 0), (20, 1, 0))).tolist() == [NO_SLOT, 7]

    def test_removing_an_unknown_slot_names_it(self) -> None:
        with pytest.raises(NotRegisteredError, match="no segment has slot 8; 1 are registered"):
            table_of([(0, 10, 0)]).remove(slots(100, 8))

    def test_removing_one_of_two_equal_segments_leaves_the_other(self) -> None:
        table = table_of([(0, 10, 0), (0, 10, 0)]).remove(slots(100))
        assert table.covering(rows((0, 10, 0))).tolist() == [101]

    def test_an_exchange_passes_over_what_is_not_there(self) -> None:
        table = table_of([(0, 10, 0), (20, 10, 0)]).exchange(slots(100, 8), rows((5, 10, 0)), slots(7))
        assert table.segments.tolist() == [[5, 10, 0], [20, 10, 0]]
        assert table.slots.tolist() == [7, 101]


class TestSection:
    def test_tables_are_kept_apart_by_backend_and_kind(self) -> None:
        section = Section()
        section.add("UCX", MemoryKind.DRAM, rows((0, 10, 0)), slots(1))
        section.add("UCX", MemoryKind.VRAM, rows((0, 10, 0)), slots(2))
        section.add("POSIX", MemoryKind.DRAM, rows((0, 10, 0)), slots(3))
        section.add("UCX", MemoryKind.DRAM, rows((10, 10, 0)), slots(4))
        assert section.lookup("UCX", MemoryKind.DRAM).covering(rows((0, 1, 0), (10, 1, 0))).tolist() == [1, 4]
        assert section.lookup("POSIX", MemoryKind.FILE) is EMPTY
        assert repr(section) == "<Section UCX DRAM: 2, UCX VRAM: 1, POSIX DRAM: 1>"

    def test_empty_tables_are_forgotten_and_snapshots_stay(self) -> None:
        section = Section()
        section.add("UCX", MemoryKind.DRAM, rows((0, 10, 0)), slots(1))
        before = section.tables
        section.remove("UCX", MemoryKind.DRAM, slots(1))
        assert not section.tables
        assert len(before["UCX", MemoryKind.DRAM]) == 1
        assert repr(section) == "<Section empty>"

    def test_a_failed_removal_removes_nothing(self) -> None:
        section = Section()
        section.add("UCX", MemoryKind.DRAM, rows((0, 10, 0)), slots(1))
        with pytest.raises(NotRegisteredError):
            section.remove("UCX", MemoryKind.DRAM, slots(1, 2))
        assert section.lookup("UCX", MemoryKind.DRAM).slots.tolist() == [1]

    def test_an_exchange_is_one_change(self, monkeypatch: pytest.MonkeyPatch) -> None:
        section = Section()
        section.add("UCX", MemoryKind.DRAM, rows((0, 10, 0)), slots(1))
        changes: list[list[int]] = []
        replace = Section._replace

        def record(self: Section, backend: str, kind: MemoryKind, table: SegmentTable) -> None:
            changes.append(table.slots.tolist())
            replace(self, backend, kind, table)

        monkeypatch.setattr(Section, "_replace", record)
        section.exchange("UCX", MemoryKind.DRAM, slots(1), rows((0, 10, 0)), slots(2))
        assert changes == [[2]]
        section.exchange("UCX", MemoryKind.DRAM, slots(2), rows(), slots())
        assert not section.tables

    def test_threads_lose_no_change(self) -> None:
        section = Section()

        def register(first: int) -> None:
            for slot in range(first, first + 50):
                section.add("UCX", MemoryKind.DRAM, rows((slot * 10, 10, 0)), slots(slot))

        threads = [threading.Thread(target=register, args=(first,)) for first in (0, 100, 200, 300)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(section.lookup("UCX", MemoryKind.DRAM)) == 200


class TestFindRows:
    @given(st.lists(small, max_size=12, unique=True), st.lists(small, max_size=12, unique=True), st.randoms())
    def test_finds_each_row_where_it_stands(self, table: list[Row], wanted: list[Row], random: Random) -> None:
        wanted = [*wanted, *(row for row in table if row not in wanted and random.random() < 0.5)]
        found = find_rows(rows(*wanted), rows(*table))
        assert found.tolist() == [table.index(row) if row in table else -1 for row in wanted]

    def test_the_same_rows_stand_where_they_stand(self) -> None:
        assert find_rows(rows((5, 1, 0), (3, 1, 0)), rows((5, 1, 0), (3, 1, 0))).tolist() == [0, 1]
