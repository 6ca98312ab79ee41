from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import typer
from tests.unit.bench.sample import HOSTILE, make_hostile, make_row, make_run
from typer.testing import CliRunner

from trunkline.bench.formats import read, write
from trunkline.bench.result import Run
from trunkline.cli.bench_results import compare, import_, report
from trunkline.cli.main import CommandGroup

if TYPE_CHECKING:
    from typer.testing import Result

LOGS = Path(__file__).parents[2] / "data/nixlbench"

app = typer.Typer(cls=CommandGroup)
app.command("import")(import_)
app.command("compare")(compare)
app.command("report")(report)


def run(*arguments: str | Path, text: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], input=text)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Results of two runs; the second is slower with batches of 16, and measured none of 1."""
    write(make_run(), tmp_path / "a.json", "json")
    write(make_run(batch_sizes=(16, 32), rate_gb_s=5.0), tmp_path / "b.json", "json")
    return tmp_path / "a.json", tmp_path / "b.json"


def test_an_imported_log_is_json_on_standard_output() -> None:
    result = run("import", LOGS / "single-pair.log")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert len(document["rows"]) == 30
    assert "note: imported from NIXLBench's text" in result.stderr


def test_an_imported_log_goes_where_it_is_told_to(tmp_path: Path) -> None:
    wanted = [f"--{kind}={tmp_path / kind}" for kind in ("json", "csv", "report")]
    result = run("import", LOGS / "four-pairs.log", *wanted)
    assert (result.exit_code, result.stdout) == (0, "")
    assert len(read(tmp_path / "json").rows) == 11
    assert len((tmp_path / "csv").read_text().splitlines()) == 12
    assert "<h1>Trunkline benchmark: four-pairs.log</h1>" in (tmp_path / "report").read_text()


def test_a_log_from_standard_input_as_csv() -> None:
    result = run("import", "-", "--csv", "-", text=(LOGS / "old-columns.log").read_text())
    assert result.stdout.splitlines()[0].startswith("engine,backend,")
    assert len(result.stdout.splitlines()) == 5


def test_what_is_no_log_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("hello")
    result = run("import", tmp_path / "x.log")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "x.log holds no results of NIXLBench" in result.stderr
    result = run("import", tmp_path / "none.log")
    assert result.exit_code == 1
    assert "none.log failed: No such file or directory" in result.stderr


def test_a_comparison_is_a_table_with_what_only_one_has(runs: tuple[Path, Path]) -> None:
    result = run("compare", *runs)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["OP", "TYPE", "BLOCK"]
    both = [line for line in lines[1:] if "only in" not in line]
    assert len(both) == 16
    assert both[-1].split() == ["READ", "67108864", "16", "7.999", "5.000", "0.625", "±4.2%", "1.600", "yes"]
    assert sum(f"only in {runs[0]}" in line for line in lines) == 16
    assert sum(f"only in {runs[1]}" in line for line in lines) == 16


def test_a_comparison_as_json(runs: tuple[Path, Path]) -> None:
    document = json.loads(run("compare", *runs, "--json").stdout)
    assert len(document["pairs"]) == len(document["only_before"]) == len(document["only_after"]) == 16
    pair = document["pairs"][-1]
    assert pair["settings"]["block_size"] == 64 << 20
    assert pair["ratio"] == pytest.approx(0.625, rel=1e-3)
    assert pair["is_different"] is True
    assert pair["before"]["variation"] == 0.03


def test_a_lowest_ratio_that_must_not_be_missed(runs: tuple[Path, Path], tmp_path: Path) -> None:
    assert run("compare", *runs, "--fail-below", "0.4").exit_code == 0
    result = run("compare", *runs, "--fail-below", "0.9")
    assert result.exit_code == 1
    assert "the lowest ratio is 0.500, and --fail-below is 0.9" in result.stderr
    write(Run(rows=()), tmp_path / "empty.json", "json")
    result = run("compare", runs[0], tmp_path / "empty.json", "--fail-below", "0.1")
    assert result.exit_code == 1
    assert "no ratio can be told" in result.stderr


def test_other_engines_are_compared_when_told_to(tmp_path: Path) -> None:
    write(make_run(), tmp_path / "a.json", "json")
    write(make_run(engine="nixl"), tmp_path / "b.json", "json")
    result = run("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert result.exit_code == 0
    assert "they differ in engine (trunkline | nixl): --ignore engine" in result.stderr
    result = run("compare", tmp_path / "a.json", tmp_path / "b.json", "--ignore", "engine")
    assert len(result.stdout.splitlines()) == 33
    assert result.stderr == ""


def test_settings_that_are_none_are_refused(runs: tuple[Path, Path]) -> None:
    result = run("compare", *runs, "--ignore", "moon-phase")
    assert result.exit_code == 2
    assert "moon_phase" in result.stderr


def test_a_report_of_several_results(runs: tuple[Path, Path], tmp_path: Path) -> None:
    result = run("report", *runs, "-o", tmp_path / "out.html")
    assert (result.exit_code, result.stdout) == (0, "")
    page = (tmp_path / "out.html").read_text()
    assert "<h1>Trunkline benchmark: a.json, b.json</h1>" in page
    assert "Compared with a.json" in page


def test_results_of_one_name_are_told_apart_by_their_paths(runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write(make_run(), tmp_path / "other/a.json", "json")
    page = run("report", runs[0], tmp_path / "other/a.json", "-o", "-").stdout
    assert f"Compared with {runs[0]}" in page


def test_hostile_texts_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    write(make_hostile(), tmp_path / "a.json", "json")
    other = msgspec.structs.replace(make_hostile(), rows=(make_row(engine=HOSTILE, backend="x"),))
    write(other, tmp_path / "b.json", "json")
    for arguments in (("a.json", "a.json"), ("a.json", "b.json")):
        result = run("compare", *(tmp_path / each for each in arguments))
        assert result.exit_code == 0
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output


def test_what_must_not_be_overlooked_is_said_before_a_comparison(tmp_path: Path) -> None:
    good = make_run()
    rows = (msgspec.structs.replace(good.rows[0], wrong=3, is_noisy=True), *good.rows[1:])
    write(good, tmp_path / "a.json", "json")
    write(msgspec.structs.replace(good, rows=rows, is_complete=False), tmp_path / "b.json", "json")
    said = run("compare", tmp_path / "a.json", tmp_path / "b.json").stderr
    assert f"{tmp_path / 'b.json'}: 3 blocks did not hold what they should" in said
    assert "b.json: not complete" in said
    assert "b.json: 1 of " in said
    assert "a.json: not complete" not in said


@pytest.mark.parametrize("command", ["requests", "traffic"])
def test_results_without_rows_are_refused_by_their_command(command: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"format": f"trunkline-bench-{command}/1"}))
    for arguments in (("compare", path, path), ("report", path, "-o", tmp_path / "x.html")):
        result = run(*arguments)
        assert result.exit_code == 1
        assert f"of `trunkline bench {command}`: it has " in result.stderr


def test_an_imported_log_that_cannot_be_written_to_one_place_goes_to_the_other(tmp_path: Path) -> None:
    result = run("import", LOGS / "four-pairs.log", f"--json={tmp_path / 'no' / 'x'}", f"--csv={tmp_path / 'x.csv'}")
    assert result.exit_code == 1
    assert "No such file" in result.stderr
    assert (tmp_path / "x.csv").exists()


def test_one_file_alone_goes_to_standard_output() -> None:
    assert run("import", LOGS / "four-pairs.log", "--json=-", "--csv=-").exit_code == 2


def test_a_file_that_is_given_twice_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    result = run("report", runs[0], runs[0], "-o", tmp_path / "x.html")
    assert result.exit_code == 2
    assert "given twice" in result.stderr
