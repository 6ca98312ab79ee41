"""NIXLBench's text, laid out as its printing code does it; the figures are made up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.bench.formats.nixlbench import import_nixlbench
from trunkline.errors import ResultError

if TYPE_CHECKING:
    from trunkline.bench.result import Run

LOGS = Path(__file__).parents[3] / "data/nixlbench"


def read(name: str) -> Run:
    return import_nixlbench((LOGS / name).read_text(), name)


def test_a_pair_with_lines_of_logs_between() -> None:
    run = read("single-pair.log")
    assert [(row.block_size, row.batch_size) for row in run.rows] == [
        (4096 << step, batch) for step in range(15) for batch in (1, 4)
    ]
    row = run.rows[1]
    assert (row.engine, row.backend, row.op_type, row.scheme, row.mode) == ("nixl", "UCX", "WRITE", "pairwise", "SG")
    assert (row.initiator_seg_type, row.target_seg_type, row.transport) == ("DRAM", "DRAM", "unknown")
    assert (row.bandwidth_gb_s, row.latency_avg_us) == (0.830637, 4.9)
    assert (row.prepare_avg_us, row.prepare_p99_us, row.post_avg_us, row.post_p99_us) == (14.0, 14.0, 1.8, 3.5)
    assert (row.transfer_avg_us, row.transfer_p99_us) == (17.9, 32.3)
    assert (row.aggregate_gb_s, row.pairs, row.num_threads, row.wrong) == (None, 1, 1, None)
    assert run.options["max_batch_size"] == "4"
    assert run.workload == "nixlbench"


def test_iterations_are_fewer_above_1_mib() -> None:
    assert {row.iterations for row in read("single-pair.log").rows if row.block_size <= 1 << 20} == {1008}
    assert {row.iterations for row in read("single-pair.log").rows if row.block_size > 1 << 20} == {63}


def test_several_pairs_behind_the_tags_of_a_launcher() -> None:
    run = read("four-pairs.log")
    assert len(run.rows) == 11
    assert {row.pairs for row in run.rows} == {4}
    last = run.rows[-1]
    assert last.aggregate_gb_s is not None
    assert last.aggregate_gb_s > 3 * last.bandwidth_gb_s
    assert last.utilisation_percent == pytest.approx(last.aggregate_gb_s / 200 * 100)
    assert any("50 GB/s for each pair" in note for note in run.notes)


def test_times_and_blank_lines_that_a_ci_adds_and_what_another_program_prints_after() -> None:
    lines = (LOGS / "old-columns.log").read_text().splitlines()
    lines[-1] = "67108864            1              39.7           1.6102e+06     1572.4         1688.4"
    lines += ["Total Write Size (B): 16777216", "+ for op_type in READ WRITE", "I0218 06:59:46 139 cache_hits: 0"]
    run = import_nixlbench("".join(f"[2026-11-25T10:17:33.487Z] {line}\n\n" for line in lines), "log")
    plain = read("old-columns.log")
    assert run.rows[:-1] == plain.rows[:-1]
    assert (run.rows[-1].block_size, run.rows[-1].bandwidth_gb_s) == (67108864, 1688.4)
    assert run.options == plain.options
    assert run.notes == plain.notes


def test_several_runs_keep_what_each_measured() -> None:
    run = read("several-runs.log")
    assert [(row.backend, row.op_type, row.iterations) for row in run.rows] == [("UCX", "READ", 1008)] * 9 + [
        ("OBJ", "WRITE", 16)
    ] * 9
    assert "backend" not in run.options
    assert run.options["initiator_seg_type"] == "DRAM"
    assert any("2 runs" in note for note in run.notes)
    assert any("consistency check failed" in note for note in run.notes)


def test_secrets_that_were_printed_are_left_out() -> None:
    text = (LOGS / "several-runs.log").read_text()
    run = import_nixlbench(text[text.index("Using null runtime") :], "log")
    assert "not-a-real" in text
    assert run.options["obj_bucket_name"] == "kv"
    assert "not-a-real" not in repr(run)


def test_columns_of_older_versions() -> None:
    run = read("old-columns.log")
    assert [row.block_size for row in run.rows] == [4096, 8192, 16384, 32768]
    assert run.rows[-1].bandwidth_gb_s == 4.87026
    assert run.rows[-1].latency_avg_us == 6.72818
    assert run.rows[-1].transfer_avg_us is None
    assert run.rows[-1].scheme == "unknown"


def test_a_table_alone_has_unknown_settings() -> None:
    text = (LOGS / "single-pair.log").read_text()
    run = import_nixlbench(text[text.index("Block Size") :], "log")
    assert len(run.rows) == 30
    assert {(row.backend, row.op_type, row.iterations) for row in run.rows} == {("unknown", "unknown", 0)}
    assert any("settings are unknown" in note for note in run.notes)


def test_options_of_another_process_between_figures_change_nothing() -> None:
    lines = (LOGS / "single-pair.log").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("4096"))
    options = [line.replace(": WRITE", ": READ") for line in lines[:first] if "(--" in line]
    run = import_nixlbench("\n".join([*lines[: first + 3], *options, *lines[first + 3 :]]), "log")
    assert run.rows == read("single-pair.log").rows


def test_a_line_of_figures_that_was_cut_is_counted() -> None:
    text = (LOGS / "old-columns.log").read_text().rstrip()
    run = import_nixlbench(text[: text.rindex(" 4.") - 20], "log")
    assert len(run.rows) == 3
    assert "1 lines of figures were broken and left out" in run.notes


@pytest.mark.parametrize("text", ["", "hello\n", "Block Size (B)  Batch Size  B/W (GB/Sec)  Avg Lat. (us)\n-----\n"])
def test_without_figures_it_says_what_it_looked_for(text: str) -> None:
    with pytest.raises(ResultError, match=r"there\.log holds no results of NIXLBench.*Block Size"):
        import_nixlbench(text, "there.log")


def test_columns_that_are_needed() -> None:
    with pytest.raises(ResultError, match="no columns for block, batch"):
        import_nixlbench("Block Size (B)   Batch Size   Avg Lat. (us)\n4096 1 3.0\n", "log")


@pytest.mark.parametrize("sizes", ["0 1", "4096 0", "-1 1", "1e3 1", "4096.5 1"])
def test_sizes_that_are_none_are_no_row(sizes: str) -> None:
    header = "Block Size (B)  Batch Size  B/W (GB/Sec)  Avg Lat. (us)"
    run = import_nixlbench(f"{header}\n{sizes} 1.0 2.0\n4096 1 1.0 2.0\n", "log")
    assert [(row.block_size, row.batch_size) for row in run.rows] == [(4096, 1)]


def test_long_lines_are_read_in_one_go() -> None:
    text = (LOGS / "old-columns.log").read_text()
    long = f"x (--num_iter=n): 7{' ' * 1_000_000}8"  # minutes, where each blank begins a search of its own
    assert len(import_nixlbench(f"{long}\n{text}", "log").rows) == 4


_LINES = st.sampled_from((LOGS / "four-pairs.log").read_text().splitlines())


@given(st.lists(_LINES | st.text(max_size=200), max_size=40))
def test_any_text_gives_rows_or_a_named_error(lines: list[str]) -> None:
    try:
        run = import_nixlbench("\n".join(lines), "log")
    except ResultError:
        return
    assert all(row.block_size >= 1 and row.pairs >= 1 for row in run.rows)
