"""What blocks hold, and whether it arrived: every byte is compared on the receiving side."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Sender(NamedTuple):
    """Whose block it is. No two transfers of a run carry the same contents.

    Attributes:
        seed: The run's.
        step: Which step.
        source: The rank whose memory it comes from.
        sink: The rank whose memory it goes to.
        lane: The transfer's lane, on the initiator's side.
    """

    seed: int
    step: int
    source: int
    sink: int
    lane: int


class Findings(NamedTuple):
    """What a check found.

    Attributes:
        wrong: How many blocks did not hold what they should.
        first: Where the first difference is, in words; empty if there is none.
    """

    wrong: int = 0
    first: str = ""


def pattern(sender: Sender, number: int, size: int) -> NDArray[np.uint8]:
    """Return what a block holds: a sequence of 64-bit words that depends on where it comes from and goes to."""
    start = np.random.SeedSequence([*sender, number]).generate_state(1, np.uint64)[0]
    words = np.arange(-(-size // 8), dtype=np.uint64)
    words *= _FACTOR
    words ^= start
    return words.view(np.uint8)[:size]


def fill(sender: Sender, blocks: Iterable[NDArray[np.uint8]]) -> None:
    """Fill a transfer's blocks on the sending side."""
    for number, block in enumerate(blocks):
        block[:] = pattern(sender, number, block.size)


def clear(sender: Sender, blocks: Iterable[NDArray[np.uint8]]) -> None:
    """Fill them on the receiving side with what differs in every byte from what is to come."""
    for number, block in enumerate(blocks):
        np.bitwise_not(pattern(sender, number, block.size), out=block)


def check(sender: Sender, blocks: Iterable[NDArray[np.uint8]]) -> Findings:
    """Compare them on the receiving side with what was sent."""
    wrong, first = 0, ""
    for number, block in enumerate(blocks):
        expected = pattern(sender, number, block.size)
        if np.array_equal(block, expected):
            continue
        wrong += 1
        if not first:
            offset = int(np.argmax(block != expected))
            first = (
                f"from rank {sender.source} to rank {sender.sink}, lane {sender.lane}, block {number} of "
                f"{block.size:,} bytes differs first at offset {offset:,}: {int(block[offset]):#04x} instead of "
                f"{int(expected[offset]):#04x}"
            )
    return Findings(wrong, first)
