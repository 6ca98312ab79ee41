"""What becomes of KV-cache workloads' results, also of those of a run that broke off."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from trunkline.bench.kv.traffic_worker import PatternTime, TrafficRun
from trunkline.bench.options import Options
from trunkline.cli.bench_kv_run import _conclude, _digest, _traffic_table

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ALONE = PatternTime(
    bytes=4096, senders=1, latency_avg_us=None, latency_p50_us=None, latency_p99_us=None,
    isolated_avg_us=20.0, isolated_p50_us=20.0, isolated_p99_us=25.0, slowdown=None, bandwidth_gb_s=None,
)  # fmt: skip
PARTIAL = TrafficRun(
    engine="trunkline", transports={"0-1": "tcp"}, iterations=0, isolated=3, patterns=(ALONE,), wrong=None,
    is_complete=False,
)  # fmt: skip


def test_what_was_not_measured_is_a_dash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.json"
    assert _conclude(PARTIAL, Options(json=str(path)), _traffic_table) == []
    out, said = capsys.readouterr()
    assert out.splitlines()[1].split() == ["1", "4.0", "KiB", "1", "-", "-", "0.020", "0.025", "-", "-"]
    assert "it broke off" in said
    document = json.loads(path.read_text())
    assert (document["is_complete"], document["patterns"][0]["slowdown"]) == (False, None)


def test_a_file_that_cannot_be_written_hides_no_wrong_blocks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = msgspec.structs.replace(PARTIAL, wrong=2, first_wrong="pattern 1", is_complete=True)
    complaints = _conclude(wrong, Options(json=str(tmp_path / "no" / "out.json")), _traffic_table)
    assert complaints[0] == "2 blocks are wrong: pattern 1"
    assert "out.json failed: No such file" in complaints[1]
    assert all(complaint in capsys.readouterr().err for complaint in complaints[:1])


def test_workloads_that_differ_in_one_of_many_requests_are_told_apart() -> None:
    lengths = np.arange(5000)
    others = lengths.copy()
    others[2500] = 7
    assert str(lengths) == str(others)  # as numpy shows long arrays
    assert _digest(lengths.tolist()) != _digest(others.tolist())
