from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.backend.contract import Operation
from trunkline.errors import (
    DescriptorError,
    NotRegisteredError,
    SegmentGoneError,
    SegmentNotFoundError,
    ShapeMismatchError,
)
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind
from trunkline.memory.section import Section, SegmentTable
from trunkline.transfer.plan import TransferPlan, plan_transfer
from trunkline.transfer.route import Route

if TYPE_CHECKING:
    from collections.abc import Sequence

LOCAL = 0x10000
REMOTE = 0x900000
SIZE = 1 << 16


def table(*segments: tuple[int, int, int]) -> SegmentTable:
    return SegmentTable(np.array(segments, np.uint64), np.arange(len(segments), dtype=np.int32))


def blocks(rows: Sequence[Sequence[int]]) -> DescriptorList:
    return DescriptorList.of(MemoryKind.DRAM, np.array(rows, np.uint64).reshape(-1, len(rows[0]) if rows else 3))


def plan(
    local: DescriptorList,
    remote: DescriptorList,
    operation: Operation = Operation.READ,
    **options: Any,
) -> TransferPlan:
    options.setdefault("local_table", table((LOCAL, SIZE, 0)))
    options.setdefault("remote_table", table((REMOTE, SIZE, 0)))
    return plan_transfer(operation, local, remote, route=Route.direct("UCX"), peer="decode-0", **options)


def moves(posting: Any) -> list[tuple[int, int]]:
    """Return every (local byte, remote byte) pair, in order."""
    return [
        (int(near) + step, int(far) + step)
        for near, far, length in zip(posting.local_address, posting.remote_address, posting.length, strict=True)
        for step in range(int(length))
    ]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4)), min_size=1, max_size=20), st.randoms())
def test_coalescing_moves_exactly_the_bytes_asked_for(cuts: list[tuple[int, int]], random: Any) -> None:
    near, far, position = [], [], 0
    for gap, length in cuts:
        near.append((LOCAL + position, length, 0))
        position += length + (gap % 3)
        far.append((REMOTE + 64 * gap, length, 0))
    order = list(range(len(cuts)))
    if random.random() < 0.5:
        random.shuffle(order)
    near, far = [near[i] for i in order], [far[i] for i in order]
    planned = plan(blocks(near), blocks(far))
    asked = [(a + k, b + k) for (a, length, _), (b, _, _) in zip(near, far, strict=True) for k in range(length)]
    assert moves(planned.posting) == asked
    assert planned.total_bytes == len(asked)
    assert planned.block_count == len(cuts)


def test_neighbours_on_both_sides_become_one_operation() -> None:
    near = [(LOCAL + 64 * i, 64, 0) for i in range(8)]
    far = [(REMOTE + 64 * i, 64, 0) for i in range(8)]
    planned = plan(blocks(near), blocks(far))
    assert planned.posting.length.tolist() == [512]
    assert planned.first_block.tolist() == [0]


def test_neighbours_on_one_side_only_stay_apart() -> None:
    near = [(LOCAL + 64 * i, 64, 0) for i in range(4)]
    far = [(REMOTE + 128 * i, 64, 0) for i in range(4)]
    assert len(plan(blocks(near), blocks(far)).posting.length) == 4


def test_neighbours_in_different_segments_stay_apart() -> None:
    near = [(LOCAL, 64, 0), (LOCAL + 64, 64, 0)]
    far = [(REMOTE, 64, 0), (REMOTE + 64, 64, 0)]
    planned = plan(blocks(near), blocks(far), remote_table=table((REMOTE, 64, 0), (REMOTE + 64, 64, 0)))
    assert planned.posting.remote_slot.tolist() == [0, 1]


def test_failed_blocks_are_those_behind_the_completed_rows() -> None:
    near = [(LOCAL, 64, 0), (LOCAL + 64, 64, 0), (LOCAL + 1024, 64, 0)]
    far = [(REMOTE, 64, 0), (REMOTE + 64, 64, 0), (REMOTE + 1024, 64, 0)]
    planned = plan(blocks(near), blocks(far))
    assert planned.blocks_after(0).tolist() == [0, 1, 2]
    assert planned.blocks_after(1).tolist() == [2]
    assert planned.blocks_after(2).tolist() == []


def test_strided_lists_are_expanded() -> None:
    strided = blocks([(LOCAL, 64, 0, 128, 3)])
    planned = plan(strided, blocks([(REMOTE + 64 * i, 64, 0) for i in range(3)]))
    assert planned.posting.local_address.tolist() == [LOCAL, LOCAL + 128, LOCAL + 256]


def test_lists_of_different_length() -> None:
    with pytest.raises(ShapeMismatchError, match="2 local blocks against 1 remote"):
        plan(blocks([(LOCAL, 8, 0), (LOCAL + 8, 8, 0)]), blocks([(REMOTE, 16, 0)]))


def test_partners_of_different_size() -> None:
    with pytest.raises(ShapeMismatchError, match="block 1 is 8 bytes here and 9 bytes at the peer"):
        plan(blocks([(LOCAL, 8, 0), (LOCAL + 8, 8, 0)]), blocks([(REMOTE, 8, 0), (REMOTE + 8, 9, 0)]))


def test_empty_lists() -> None:
    with pytest.raises(DescriptorError, match="at least 1"):
        DescriptorList.of(MemoryKind.DRAM, np.empty((0, 3), np.uint64))


@pytest.mark.parametrize(
    "row", [(LOCAL - 1, 8, 0), (LOCAL + SIZE - 7, 8, 0), (LOCAL, SIZE + 1, 0), (LOCAL, 8, 1), (1, 8, 0)]
)
def test_a_local_block_outside_registered_memory(row: tuple[int, int, int]) -> None:
    with pytest.raises(NotRegisteredError, match="local block 1 "):
        plan(blocks([(LOCAL, 8, 0), row]), blocks([(REMOTE, 8, 0), (REMOTE + 8, row[1], 0)]))


def test_a_remote_block_outside_what_the_peer_offers() -> None:
    with pytest.raises(SegmentNotFoundError, match="'decode-0''s block 0 ") as caught:
        plan(blocks([(LOCAL, 8, 0)]), blocks([(REMOTE + SIZE, 8, 0)]))
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, ValueError)


FORMER = [(REMOTE, SIZE, 1), (REMOTE + 2 * SIZE, 64, 0), (REMOTE + 2 * SIZE + 64, 64, 0)]


@pytest.mark.parametrize(("offset", "length"), [(0, 64), (63, 1), (64, 64), (72, 8)])
def test_a_remote_block_of_memory_that_the_peer_took_back(offset: int, length: int) -> None:
    gone = (REMOTE + 2 * SIZE + offset, length, 0)
    with pytest.raises(SegmentGoneError, match=r"'decode-0''s block 1 .*took that memory back") as caught:
        plan(
            blocks([(LOCAL, 8, 0), (LOCAL + 8, length, 0)]),
            blocks([(REMOTE, 8, 0), gone]),
            former=np.array(FORMER, np.uint64),
        )
    assert (caught.value.context["block"], caught.value.context["address"]) == (1, gone[0])


@pytest.mark.parametrize(("offset", "length", "device"), [(-1, 2, 0), (63, 2, 0), (128, 1, 0), (SIZE, 1, 0), (0, 8, 2)])
def test_a_remote_block_beside_memory_that_the_peer_took_back_was_never_offered(
    offset: int, length: int, device: int
) -> None:
    with pytest.raises(SegmentNotFoundError, match="is not registered") as caught:
        plan(
            blocks([(LOCAL, length, 0)]),
            blocks([(REMOTE + 2 * SIZE + offset, length, device)]),
            former=np.array(FORMER, np.uint64),
        )
    assert not isinstance(caught.value, SegmentGoneError)


@pytest.mark.parametrize(
    ("segment", "error"),
    [
        ((REMOTE, 128, 0), None),
        ((REMOTE, 64, 0), SegmentGoneError),
        ((REMOTE + 64, 128, 0), SegmentGoneError),
        ((REMOTE + 256, 64, 0), SegmentGoneError),
        (None, SegmentGoneError),
    ],
)
def test_a_plan_holds_while_its_slot_covers_it(
    segment: tuple[int, int, int] | None, error: type[SegmentGoneError] | None
) -> None:
    local, remote = Section(), Section()
    local.add("UCX", MemoryKind.DRAM, np.array([(LOCAL, SIZE, 0)], np.uint64), np.zeros(1, np.int32))
    planned = plan(
        blocks([(LOCAL, 96, 0)]),
        blocks([(REMOTE, 96, 0)]),
        local_table=local.lookup("UCX", MemoryKind.DRAM),
    )
    if segment is not None:
        remote.add("UCX", MemoryKind.DRAM, np.array([segment], np.uint64), np.zeros(1, np.int32))
    if error is None:
        planned.check_tables(local, remote, "decode-0")
    else:
        with pytest.raises(error, match="does not offer all memory of this transfer any more"):
            planned.check_tables(local, remote, "decode-0")


def test_memory_that_was_taken_back_and_is_offered_again() -> None:
    former = np.array([(REMOTE, SIZE, 0)], np.uint64)
    assert plan(blocks([(LOCAL, 8, 0)]), blocks([(REMOTE, 8, 0)]), former=former).block_count == 1


@pytest.mark.parametrize("operation", list(Operation))
def test_overlapping_destinations(operation: Operation) -> None:
    apart = [(0, 64, 0), (64, 64, 0), (128, 64, 0)]
    clash = [(128, 64, 0), (0, 64, 0), (100, 64, 0)]
    near, far = (clash, apart) if operation is Operation.READ else (apart, clash)
    local = blocks([(LOCAL + a, n, d) for a, n, d in near])
    remote = blocks([(REMOTE + a, n, d) for a, n, d in far])
    with pytest.raises(DescriptorError, match="blocks 0 and 2 overlap"):
        plan(local, remote, operation)
    opposite = Operation.WRITE if operation is Operation.READ else Operation.READ
    assert plan(local, remote, opposite).block_count == 3  # one source may be read twice


def test_the_same_offset_on_two_devices_does_not_overlap() -> None:
    both = table((LOCAL, SIZE, 0), (LOCAL, SIZE, 1))
    near, far = blocks([(LOCAL, 8, 1), (LOCAL, 8, 0)]), blocks([(REMOTE, 8, 0), (REMOTE + 8, 8, 0)])
    planned = plan(near, far, local_table=both)
    assert planned.posting.local_slot.tolist() == [1, 0]
