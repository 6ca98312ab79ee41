from __future__ import annotations

import msgspec
from tests.unit.bench.sample import SIZES, make_matrix, make_row, make_run

from trunkline.bench.report.series import choose_axis, limit_lines, lines_of, make_series
from trunkline.bench.result import Run


def labels(**runs: Run) -> list[str]:
    return [each.label for each in make_series(runs, "block_size")]


def test_labels_say_what_tells_lines_apart_and_no_more() -> None:
    assert labels(a=make_run()) == ["WRITE, batch 1", "WRITE, batch 16", "READ, batch 1", "READ, batch 16"]
    assert labels(a=make_run(op_types=["READ"], batch_sizes=[1])) == ["READ"]
    assert labels(a=make_run(op_types=["READ"], num_threads=2, batch_sizes=[1, 2])) == ["batch 1", "batch 2"]


def test_what_follows_from_the_run_is_not_said_again() -> None:
    one, other = (make_run(op_types=["READ"], batch_sizes=[1], engine=engine) for engine in ("trunkline", "nixl"))
    assert labels(a=one, b=other) == ["a", "b"]
    assert labels(a=msgspec.structs.replace(one, rows=one.rows + other.rows), b=other) == [
        "a, trunkline", "a, nixl", "b, nixl",
    ]  # fmt: skip


def test_a_line_has_a_point_for_each_size() -> None:
    (series,) = make_series({"a": make_run(op_types=["READ"], batch_sizes=[1])}, "block_size")
    assert tuple(series.rows) == SIZES


def test_the_axis_shows_what_was_varied() -> None:
    batches = Run(rows=tuple(make_row(batch_size=1 << step) for step in range(4)))
    assert choose_axis([make_run()]) == "block_size"
    assert choose_axis([batches]) == "batch_size"
    assert choose_axis([Run(rows=(make_row(),))]) == "block_size"
    assert list(make_series({"a": batches}, "batch_size")[0].rows) == [1, 2, 4, 8]


def test_pairs_measured_alone_are_no_points() -> None:
    assert make_series({"a": make_matrix(3)}, "block_size") == []


def test_what_was_not_measured_is_not_drawn_and_noise_is_marked() -> None:
    rows = (
        make_row(latency_p50_us=None),
        make_row(block_size=8192, is_noisy=True, latency_p50_us=3.0),
        make_row(block_size=16384, latency_p50_us=0.0),
    )
    (line,) = lines_of(make_series({"a": Run(rows=rows)}, "block_size"), lambda row: row.latency_p50_us)
    assert line.points == {8192: 3.0}
    assert line.noisy == {8192}
    assert lines_of(make_series({"a": Run(rows=rows[:1])}, "block_size"), lambda row: row.latency_p50_us) == []


def test_limits_that_are_the_same_are_one_line() -> None:
    (line,) = limit_lines({"a": make_run(), "b": make_run()}, "block_size")
    assert line.label == "limit: memcpy"
    assert line.is_limit
    assert line.points == dict.fromkeys(SIZES, 12.5)


def test_limits_of_several_runs_say_whose_they_are() -> None:
    lines = limit_lines({"a": make_run(), "b": make_run(limit_gb_s=9.0)}, "block_size")
    assert [line.label for line in lines] == ["limit: memcpy of a", "limit: memcpy of b"]
    assert limit_lines({"a": make_run(limit_gb_s=None)}, "block_size") == []
