from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.bench.test_table import ROW

from trunkline.bench import formats
from trunkline.bench.options import Options
from trunkline.bench.record import Record

if TYPE_CHECKING:
    from pathlib import Path


def test_what_broke_off_is_written_with_what_there_is(tmp_path: Path) -> None:
    paths = {name: str(tmp_path / f"out.{name}") for name in ("csv", "json", "report")}
    record = Record(Options(num_iter=7, obj_secret_key="s3cret", backend="OBJ", **paths))  # type: ignore[arg-type]
    record.rows.append(ROW)
    record.notes.append("broke off: worker 1 was lost")
    assert record.write(is_complete=False) == []
    run = formats.read(paths["json"])
    assert run.rows == (ROW,)
    assert not run.is_complete
    assert run.notes[0] == "broke off: worker 1 was lost"
    assert "too noisy" in run.notes[1]
    assert run.options["num_iter"] == 7
    assert run.limit == "memcpy"
    for path in paths.values():
        text = (tmp_path / path).read_text()
        assert "4096" in text
        assert "s3cret" not in text


def test_a_file_that_cannot_be_written_does_not_cost_the_others(tmp_path: Path) -> None:
    record = Record(Options(csv=str(tmp_path / "no" / "x.csv"), json=str(tmp_path / "x.json")))
    record.rows.append(ROW)
    (failure,) = record.write(is_complete=True)
    assert "x.csv" in str(failure)
    assert formats.read(str(tmp_path / "x.json")).is_complete
