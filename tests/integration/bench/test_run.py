"""Whole runs, as a user starts them."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.bench.conftest import Bench

QUICK = ("--device-list", "lo", "--max-block-size", "16KiB", "--num-iter", "20", "--warmup-iter", "2")


def test_one_command_measures_two_workers_of_this_machine(bench: Bench, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("out.csv", "out.json", "out.html")]
    found = bench.commands.run(
        "bench", "--local", 2, *QUICK, "--check_consistency",
        "--csv", paths[0], "--json", paths[1], "--report", paths[2],
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    header, *rows = found.stdout.splitlines()
    assert header.startswith("Block Size (B)  Batch Size  B/W (GB/Sec)  Avg Lat. (us)")
    assert [row.split()[0] for row in rows] == ["4096", "8192", "16384"]
    said = found.stderr.splitlines()
    assert "writes to rank 1 (" in said[0]
    assert "target of 0" in said[1]
    assert any(line.startswith("Prep ") for line in said)
    document = json.loads(paths[1].read_text())
    assert [row["wrong"] for row in document["rows"]] == [0, 0, 0]
    assert document["is_complete"]
    assert document["environment"]["ucx"]
    assert document["options"]["num_iter"] == 20
    lines = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    assert [line["block_size"] for line in lines] == ["4096", "8192", "16384"]
    assert paths[2].read_text().startswith("<!doctype html>")


def test_a_local_run_gives_no_secrets_to_its_own_etcd(bench: Bench) -> None:
    bench.commands.environment |= {"ETCDCTL_USER": "root:s3cret", "ETCDCTL_CACERT": "/nowhere/ca.pem"}
    found = bench.commands.run("bench", "--local", 2, *QUICK, "--quiet")
    assert found.returncode == 0
    assert not found.stderr


def test_a_document_on_standard_output_is_alone_there(bench: Bench) -> None:
    found = bench.commands.run("bench", "--local", 2, *QUICK, "--json", "-")
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["rows"]) == 3


def test_workers_meet_in_a_group_and_only_rank_0_prints(bench: Bench) -> None:
    workers = [bench.worker(*QUICK, "--scheme", "manytoone", "--workers", 3, "--rank", rank) for rank in (2, 0, 1)]
    results = [worker.communicate(timeout=100) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], results
    assert [bool(out) for out, _ in results] == [False, True, False]
    assert "Aggregate B/W (GB/Sec)" in results[1][0]
    assert all("rank 2: " in error for _, error in results)
    assert bench.keys() == []


@pytest.mark.parametrize("workload", ["notifications", "metadata"])
def test_other_workloads(bench: Bench, workload: str) -> None:
    found = bench.commands.run(
        "bench", "--local", 2, "--workload", workload, "--device-list", "lo", "--num-iter", 5, "--max-block-size",
        "4KiB", "--max-batch-size", 1, "--json", "-",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout)
    assert document["workload"] == workload
    assert document["limit"] is None
    operations = {row["op_type"] for row in document["rows"]}
    expected = {"NOTIFY"} if workload == "notifications" else {"REGISTER", "ENCODE", "PUBLISH", "EXCHANGE", "LOAD"}
    assert operations == expected
    assert all(row["latency_avg_us"] > 0 for row in document["rows"])


@pytest.mark.skipif(importlib.util.find_spec("nixl_cu12") is None, reason="NVIDIA's wheel is not installed")
def test_metadata_by_both_engines(bench: Bench) -> None:
    found = bench.commands.run(
        "bench", "--local", 4, "--workload", "metadata", "--engine", "both", "--device-list", "lo", "--num-iter", 5,
        "--warmup-iter", 1, "--max-block-size", "4KiB", "--max-batch-size", 1, "--json", "-",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    rows = json.loads(found.stdout)["rows"]
    assert [row["op_type"] for row in rows if row["engine"] == "nixl"] == ["REGISTER", "ENCODE", "EXCHANGE", "LOAD"]
    assert all(row["latency_avg_us"] > 0 for row in rows)
    assert "1 region of 4,096 B: median time of trunkline / nixl: " in found.stderr


def test_storage_is_measured_without_an_etcd(bench: Bench, tmp_path: Path) -> None:
    found = bench.commands.run(
        "bench", "--backend", "POSIX", "--filepath", tmp_path, "--max_block_size", "8192", "--num_iter", 10,
        "--op_type", "READ", "--check_consistency", "--etcd_endpoints", "http://127.0.0.1:1",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "reads from files" in found.stderr
    assert [line.split()[-1] for line in found.stdout.replace(" !", "").splitlines()[1:]] == ["0", "0"]


@pytest.mark.skipif(importlib.util.find_spec("nixl_cu12") is None, reason="NVIDIA's wheel is not installed")
def test_nixl_and_trunkline_are_measured_in_turn(bench: Bench) -> None:
    found = bench.commands.run("bench", "--local", 4, "--engine", "both", *QUICK, "--json", "-", "--check-consistency")
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout)
    assert [row["engine"] for row in document["rows"]] == ["trunkline", "nixl"] * 3
    assert {row["wrong"] for row in document["rows"]} == {0}
    ratios = [note for note in document["notes"] if "bandwidth of trunkline / nixl" in note]
    assert len(ratios) == 3


def test_options_come_from_a_file_too(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text('local = 2\ndevice_list = "lo"\nblock_size = "4KiB"\nnum_iter = 10\n')
    found = bench.commands.run("bench", "--config_file", path, "--json", "-", "--num-iter", 12)
    assert found.returncode == 0, found.stderr
    assert [row["iterations"] for row in json.loads(found.stdout)["rows"]] == [12]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--scheme", "star"), "--scheme = 'star' is none of pairwise"),
        (("--local", "3"), "pairs need an even number"),
        (("--batch-size", "1000000"), "are more than --total-buffer-size"),
        (("--gds-batch-limit", "3"), "--gds-batch-limit is for GDS, and the backend is UCX"),
        (("--num-iter", "5", "compare", "a", "b"), "are for a run"),
        (("--backend", "POSIX", "--filepath", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--backend", "POSIX", "--filenames", "a,a", "--num-files", "2"), "names a file twice"),
    ],
)
def test_bad_input_is_refused_in_one_line(bench: Bench, arguments: tuple[str, ...], match: str) -> None:
    found = bench.commands.run("bench", *arguments)
    assert found.returncode in (1, 2)
    assert match in found.stderr.replace("│", "").replace("\n", " ").replace("  ", " ")
    assert "Traceback" not in found.stderr
    assert not found.stdout
