"""Whether blocks arrived: what a rank's memory holds before a transfer, and comparing it where it went."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trunkline.bench.consistency import Sender, pattern

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_BYTES = 64 << 20
"""How many bytes are compared at once."""


class Placed(NamedTuple):
    """Blocks of one size somewhere in an array of bytes."""

    memory: NDArray[np.uint8]
    offsets: NDArray[np.int64]


def content(seed: int, step: int, rank: int, size: int) -> NDArray[np.uint8]:
    """Return what a rank's memory holds before a step of a run; no two steps and ranks have the same."""
    return pattern(Sender(seed, step, rank, rank, 0), 0, size)


def compare(found: Placed, expected: Placed, size: int) -> tuple[int, str]:
    """Compare blocks with what they should hold.

    Args:
        found: Where they arrived.
        expected: The same blocks, as they were sent.
        size: Bytes of each.

    Returns:
        How many differ, and in words where the first of them does; empty if none.
    """
    count, first = 0, ""
    step = max(1, _MOST_BYTES // size)
    windows = [np.lib.stride_tricks.sliding_window_view(each.memory, size) for each in (found, expected)]
    for start in range(0, len(found.offsets), step):
        there, here = (
            each[placed.offsets[start : start + step]] for each, placed in zip(windows, (found, expected), strict=True)
        )
        differs = there != here
        wrong = np.flatnonzero(differs.any(axis=1))
        if wrong.size and not first:
            block = int(wrong[0])
            byte = int(np.argmax(differs[block]))
            first = (
                f"block {start + block} of {size:,} bytes differs first at offset {byte:,}: "
                f"{int(there[block, byte]):#04x} instead of {int(here[block, byte]):#04x}"
            )
        count += len(wrong)
    return count, first
