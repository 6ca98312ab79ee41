from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchmarks.figure import Measurement
from benchmarks.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("has_nixl", "expected"),
    [(True, ["ours", "nixl", "nixl", "ours", "ours", "nixl"]), (False, ["ours", "ours", "ours"])],
)
def test_sides_take_turns(has_nixl: bool, expected: list[str]) -> None:
    turns: list[str] = []

    def measure(run: Run, side: str) -> Iterator[Measurement]:
        turns.append(side)
        yield Measurement("turn", "", len(turns))
        if side == "ours":
            yield Measurement("ours alone", "s", 1.0, "1")

    turn, alone = Run(3, 1.0, has_nixl, "etcd://nowhere").figures(measure)
    assert turns == expected
    assert turn.ours == [number for number, side in enumerate(turns, 1) if side == "ours"]
    assert turn.nixl == [number for number, side in enumerate(turns, 1) if side == "nixl"]
    assert (alone.name, alone.unit, alone.goal, alone.ours, alone.nixl) == ("ours alone", "s", "1", [1.0] * 3, [])


@pytest.mark.parametrize(("effort", "count", "times"), [(1.0, 400, 400), (0.25, 400, 100), (0.25, 6, 3)])
def test_less_effort_means_fewer_repetitions(effort: float, count: int, times: int) -> None:
    assert Run(1, effort, False, "").repeat(count) == times
