from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, TextColumn

from trunkline.cli.progress import REDRAWN_AFTER, StepBar, show_steps

if TYPE_CHECKING:
    import pytest


def test_a_bar_is_drawn_for_what_comes_next_and_else_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("trunkline.cli.progress.time.monotonic", lambda: now)
    drawn: list[float] = []
    bars = Progress(TextColumn("{task.completed}"), console=Console(file=io.StringIO()), auto_refresh=False)
    monkeypatch.setattr(bars, "refresh", lambda: drawn.append(bars.tasks[0].completed) if bars.tasks else None)
    bar = StepBar("steps", bars)
    drawn.clear()
    bar.update(0, 9)
    bar.update(1, 9)
    assert drawn == [0]
    now += 2 * REDRAWN_AFTER
    bar.update(2, 9)
    bar.update(3, 9, "4 KiB")
    assert drawn == [0, 2, 3]
    assert (bars.tasks[0].total, bars.tasks[0].description) == (9, "4 KiB")


def test_nothing_is_shown_where_standard_error_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with show_steps("steps", is_wanted=True) as bar:
        bar.update(1, 2)
    assert capsys.readouterr() == ("", "")
