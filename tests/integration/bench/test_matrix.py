"""Matrices of workers, as a user starts them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.bench.conftest import Bench

QUICK = ("--device-list", "lo", "--block-size", "16KiB", "--num-iter", "5", "--warmup-iter", "1")


def test_every_pair_of_three(bench: Bench, tmp_path: Path) -> None:
    path, page = tmp_path / "out.json", tmp_path / "out.html"
    found = bench.commands.run(
        "bench", "matrix", "--local", 3, *QUICK, "--check_consistency", "--json", path, "--report", page
    )
    assert found.returncode == 0, found.stderr
    header, *lines = found.stdout.splitlines()
    assert header.split() == ["GB/S", "from", "↓", "to", "→", "0", "1", "2"]
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]
    document = json.loads(path.read_text())
    assert document["workload"] == "matrix"
    pairs = {(row["initiator"], row["target"]): row for row in document["rows"]}
    assert set(pairs) == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}
    assert all(row["wrong"] == 0 and row["bandwidth_gb_s"] > 0 and row["transport"] for row in pairs.values())
    assert "initiators down, targets across" in page.read_text()


def test_too_slow_a_pair_is_status_1_and_named(bench: Bench) -> None:
    found = bench.commands.run("bench", "matrix", "--local", 2, *QUICK, "--op_type", "READ", "--min-gbps", 1e6)
    assert found.returncode == 1
    assert "rank 0 → rank 1 moves " in found.stderr
    assert "rank 1 → rank 0 moves " in found.stderr
    assert len(found.stdout.splitlines()) == 3


def test_too_few_workers_are_refused(bench: Bench) -> None:
    found = bench.commands.run("bench", "matrix", *QUICK)
    assert found.returncode == 1
    assert "2 workers at least: give --local or --workers" in found.stderr


def test_workers_that_want_different_things_say_so(bench: Bench) -> None:
    own = ("--etcd-endpoints", bench.endpoint, "--benchmark-group", bench.group, "--workers", 2)
    workers = [
        bench.commands.start("bench", "matrix", *own, *QUICK, "--rank", rank, "--op-type", op_type)
        for rank, op_type in enumerate(("READ", "WRITE"))
    ]
    said = [worker.communicate(timeout=PATIENCE)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [1, 1]
    assert any("--op-type is READ at rank 0 and WRITE at rank 1" in each for each in said), said
