from __future__ import annotations

import json

import pytest
from benchmarks.figure import Figure, heading


def test_ratios_are_of_medians_and_of_each_round() -> None:
    figure = Figure("8 B", "us", "≤ 2.5", ours=[2.0, 4.0, 9.0], nixl=[1.0, 1.0, 3.0])
    assert figure.ratio == 4.0
    assert figure.pairwise == [2.0, 4.0, 3.0]
    assert figure.spread == (2.0, 4.0)


def test_without_nixl_there_is_no_ratio() -> None:
    figure = Figure("8 B", "us", "", ours=[2.0, 4.0, 9.0])
    assert figure.ratio is None
    assert figure.pairwise == []
    assert figure.spread == (2.0, 9.0)
    seen = json.loads(figure.json())
    assert (seen["ours"], seen["nixl"], seen["ratio"], seen["pairwise_ratio"]) == (4.0, None, None, None)


def test_rounds_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        Figure("8 B", "us", "", ours=[1.0, 2.0], nixl=[1.0]).json()


def test_a_line_of_json_holds_four_digits() -> None:
    line = Figure("READ 8 B", "us", "≤ 2.5", ours=[1.23456, 2.34567, 3.45678], nixl=[1.0, 2.0, 3.0]).json()
    assert "\n" not in line
    assert json.loads(line) == {
        "name": "READ 8 B",
        "unit": "us",
        "ours": 2.346,
        "nixl": 2.0,
        "ratio": 1.173,
        "pairwise_ratio": 1.173,
        "spread": [1.152, 1.235],
        "rounds": 3,
        "goal": "≤ 2.5",
    }


def test_the_table_is_aligned() -> None:
    row = Figure("READ 8 B", "us", "", ours=[2.0], nixl=[1.0]).row()
    alone = Figure("READ 8 B", "us", "", ours=[2.0]).row()
    assert heading().index("unit") == row.index("us ") == alone.index("us ")
