"""What workers tell the first one when they have measured something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from trunkline.bench.statistics import Measured  # noqa: TC001 - msgspec reads the annotations
from trunkline.bench.team import decode_all

if TYPE_CHECKING:
    from collections.abc import Sequence


class Outcome(msgspec.Struct, frozen=True):
    """What one worker found.

    Attributes:
        measured: Its times, if it is an initiator.
        wrong: Blocks that did not hold what they should, on its receiving side.
        first: Where the first one differs.
    """

    measured: Measured | None = None
    wrong: int = 0
    first: str = ""


_OUTCOME = msgspec.msgpack.Decoder(Outcome)


def decode_outcomes(those: Sequence[bytes]) -> list[Outcome]:
    """Decode everybody's, by rank.

    Raises:
        GroupError: One can't be read.
    """
    return decode_all(_OUTCOME, those, "an outcome")
