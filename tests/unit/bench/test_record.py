from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest
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


def test_what_is_no_unicode_and_passwords_in_addresses_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UCX_TEST_ONLY", "a\udcffb")
    path = tmp_path / "x.json"
    record = Record(Options(json=str(path), filepath="/mnt/\udcff", etcd_endpoints="redis://:s3cret@host:6379/0"))
    record.rows.append(ROW)
    assert record.write(is_complete=True) == []
    found = formats.read(path)
    assert found.options["filepath"] == "/mnt/\ufffd"
    assert found.options["etcd_endpoints"] == "redis://host:6379/0"
    assert "UCX_TEST_ONLY=a\ufffdb" in found.environment["ucx settings"]


def test_a_reader_of_standard_output_that_goes_away_does_not_cost_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.BytesIO):
        def write(self, _: object) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Gone()))
    record = Record(Options(csv="-", json=str(tmp_path / "x.json")))
    record.rows.append(ROW)
    with pytest.raises(BrokenPipeError):
        record.write(is_complete=True)
    assert formats.read(tmp_path / "x.json").rows == (ROW,)
