from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from trunkline.cli.bench import app

if TYPE_CHECKING:
    from trunkline.bench.options import Options


@pytest.mark.parametrize(
    ("argument", "is_set"),
    [
        ("--recreate_xfer", True), ("--recreate_xfer=1", True), ("--recreate-xfer=True", True),
        ("--recreate_xfer=0", False), ("--recreate_xfer=false", False), ("--no-recreate-xfer", False),
    ],
)  # fmt: skip
def test_flags_are_set_as_nixlbenchs_are(monkeypatch: pytest.MonkeyPatch, argument: str, is_set: bool) -> None:
    runs: list[Options] = []
    monkeypatch.setattr("trunkline.cli.bench_terminal.run_on_terminal", runs.append)
    found = CliRunner().invoke(app, [argument, "--csv=1"])
    assert found.exit_code == 0, found.output
    assert (runs[0].recreate_xfer, runs[0].csv) == (is_set, "1")


def test_a_flag_is_no_place_for_another_value() -> None:
    found = CliRunner().invoke(app, ["--recreate_xfer=maybe"])
    assert found.exit_code == 2
