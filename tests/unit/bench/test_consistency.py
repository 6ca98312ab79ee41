from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.bench.consistency import Sender, check, clear, fill, pattern

SENDER = Sender(seed=1, step=2, source=3, sink=4, lane=5)


def blocks(*sizes: int) -> list[np.ndarray[tuple[int], np.dtype[np.uint8]]]:
    return [np.zeros(size, np.uint8) for size in sizes]


def test_what_was_filled_checks() -> None:
    those = blocks(1, 7, 8, 4096, 5000)
    fill(SENDER, those)
    assert check(SENDER, those) == (0, "")


@given(at=st.integers(0, 4999), flip=st.integers(1, 255))
def test_any_changed_byte_is_found_where_it_is(at: int, flip: int) -> None:
    those = blocks(4096, 5000)
    fill(SENDER, those)
    those[1][at] ^= flip
    wrong, first = check(SENDER, those)
    assert wrong == 1
    assert f"block 1 of 5,000 bytes differs first at offset {at:,}: " in first


def test_nothing_of_a_cleared_block_passes_for_what_is_to_come() -> None:
    those = blocks(4096)
    clear(SENDER, those)
    assert (those[0] != pattern(SENDER, 0, 4096)).all()
    assert check(SENDER, those).wrong == 1


@pytest.mark.parametrize("field", Sender._fields)
def test_blocks_of_another_step_worker_or_lane_are_wrong(field: str) -> None:
    those = blocks(8)
    fill(SENDER._replace(**{field: 9}), those)
    assert check(SENDER, those).wrong == 1


def test_blocks_that_changed_places_are_wrong() -> None:
    those = blocks(64, 64)
    fill(SENDER, those)
    assert check(SENDER, those[::-1]).wrong == 2
