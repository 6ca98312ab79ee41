from __future__ import annotations

import csv
import io

from tests.unit.bench.sample import HOSTILE, make_hostile, make_run

from trunkline.bench.formats.csv import COLUMNS, encode_csv
from trunkline.bench.result import SETTINGS, Row, Run


def test_settings_come_first_then_all_that_was_measured() -> None:
    assert COLUMNS[: len(SETTINGS)] == SETTINGS
    assert sorted(COLUMNS) == sorted(Row.__struct_fields__)
    assert {"wrong", "transport", "bandwidth_gb_s", "latency_p99_9_us"} <= set(COLUMNS)


def test_a_line_for_each_row() -> None:
    run = make_run()
    lines = list(csv.DictReader(io.StringIO(encode_csv(run).decode())))
    assert len(lines) == len(run.rows)
    assert lines[3]["block_size"] == str(run.rows[3].block_size)
    assert float(lines[3]["bandwidth_gb_s"]) == run.rows[3].bandwidth_gb_s
    assert lines[3]["is_noisy"] == "false"
    assert lines[3]["rate_per_s"] == ""


def test_texts_come_back_as_they_were() -> None:
    lines = list(csv.DictReader(io.StringIO(encode_csv(make_hostile()).decode(), newline="")))
    assert {line["transport"] for line in lines} == {HOSTILE}


def test_without_rows_the_names_stand_alone() -> None:
    assert encode_csv(Run(rows=())).decode() == ",".join(COLUMNS) + "\n"
