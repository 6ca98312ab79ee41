"""What becomes of a matrix: the map, what is said of it, the files; with rows that were not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import typer
from rich.console import Console
from tests.unit.bench.test_matrix import rows_of
from typer.testing import CliRunner

from trunkline.bench.formats import read
from trunkline.cli.bench_matrix import matrix, show
from trunkline.cli.main import CommandGroup
from trunkline.errors import WorkerLostError

if TYPE_CHECKING:
    from pathlib import Path

app = typer.Typer(cls=CommandGroup)
app.command()(matrix)
app.command()(typer.echo)  # so that the other one has a name


def run(
    monkeypatch: pytest.MonkeyPatch, *arguments: object, count: int = 12, error: BaseException | None = None
) -> tuple[int, str, str]:
    """Run the command, with a run that measures some of the 12 pairs of 4 workers, and then fails maybe."""

    class Worker:
        def __init__(self, *_: object, measured: Any, **__: object) -> None:
            self.measured = measured

        def run(self, *_: object) -> None:
            for row in rows_of(4, {})[:count]:
                self.measured(row, "")
            if error is not None:
                raise error

    class Group:
        rank = 0

    monkeypatch.setattr("trunkline.bench.matrix.MatrixWorker", Worker)
    monkeypatch.setattr("trunkline.bench.ranks.run_worker", lambda *those: those[-1](Group(), None, "bench-0"))
    found = CliRunner().invoke(app, ["matrix", "--workers", "4", *map(str, arguments)])
    return found.exit_code, found.stdout, found.stderr


def test_what_broke_off_is_kept_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    lost = WorkerLostError("lost worker 3", ranks=(3,))
    code, out, said = run(monkeypatch, "--json", path, count=9, error=lost)
    assert code == 1
    assert out.splitlines()[-1].split() == ["3", "-", "-", "-", "-"]
    missing = "9 of 12 pairs were measured; not rank 3 → rank 0, rank 3 → rank 1, rank 3 → rank 2"
    assert said.splitlines() == [missing, "trunkline: lost worker 3"]
    kept = read(path)
    assert (len(kept.rows), kept.is_complete, kept.notes) == (9, False, ("broke off: lost worker 3", missing))


def test_an_interrupt_is_named_as_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    code, _, said = run(monkeypatch, "--json", path, count=1, error=KeyboardInterrupt())
    assert code == 130
    assert said.splitlines() == ["1 of 12 pairs were measured"]
    assert read(path).notes[0] == "broke off: it was interrupted"


def test_a_worker_that_another_one_started_leaves_the_telling_to_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "--quiet", count=0, error=WorkerLostError("lost worker 3", ranks=(3,))) == (1, "", "")


def test_a_page_on_standard_output_has_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run(monkeypatch, "--report", "-")
    assert code == 0
    assert out.startswith("<!doctype html>")


@pytest.mark.parametrize("size", [("--block-size", 0), ("--batch-size", 10**30)])
def test_sizes_that_cannot_be(monkeypatch: pytest.MonkeyPatch, size: tuple[str, int]) -> None:
    code, _, said = run(monkeypatch, *size)
    assert code == 1
    assert said.startswith("trunkline: ")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_figure_is_cut_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    console = Console(force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr("trunkline.cli.table.make_console", lambda: console)
    rows = rows_of(20, {})
    with console.capture() as capture:
        show(rows, 20)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    wanted = [f"{row.bandwidth_gb_s:.3f}" for row in rows]
    assert sorted(word for word in text.split() if "." in word) == sorted(wanted)
