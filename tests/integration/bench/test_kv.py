"""KV-cache workloads by real processes, over UCX and a real etcd."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {"num_hidden_layers": 3, "num_key_value_heads": 4, "head_dim": 64, "torch_dtype": "float16"}
COMMAND = [sys.executable, "-m", "trunkline", "bench"]
ENVIRONMENT = {**os.environ, "UCX_NET_DEVICES": "lo"}
ENVIRONMENT.pop("NIXL_ETCD_ENDPOINTS", None)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SMALL))
    return str(path)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=100, check=False
    )


def found(*arguments: str) -> dict[str, Any]:
    done = run(*arguments, "--check-consistency", "--json", "-")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize(
    ("op_type", "split", "pairs"),
    [("READ", ("--tp", "2", "--decode-tp", "1"), {"2-0", "2-1"}), ("WRITE", ("--decode-pp", "2"), {"0-1", "0-2"})],
)
def test_requests_between_other_splits(model: str, op_type: str, split: tuple[str, ...], pairs: set[str]) -> None:
    document = found(
        "requests", "--model", model, *split, "--local", "3", "--isl", "uniform:1:300", "--num-requests", "3",
        "--op-type", op_type, "--concurrency", "2",
    )  # fmt: skip
    assert (document["wrong"], document["concurrency"]) == (0, 2)
    assert len(document["requests"]) == 3
    assert set(document["transports"]) == pairs
    assert all(0 < each["prepare_us"] < each["latency_us"] for each in document["requests"])


@pytest.mark.skipif(importlib.util.find_spec("nixl_cu12") is None, reason="NVIDIA's wheel is not installed")
def test_requests_by_nixl(model: str) -> None:
    document = found("requests", "--model", model, "--local", "2", "--engine", "nixl", "--num-requests", "2")
    assert (document["engine"], document["wrong"]) == ("nixl", 0)


def test_traffic(tmp_path: Path) -> None:
    path = tmp_path / "traffic.yaml"
    path.write_text(
        "iters: 3\nwarmup_iters: 1\nisolation_iters: 2\ntraffic_patterns:\n"
        "- {mem_type: cpu, matrix: [[0, 1M, 70K], [0, 0, 0], [0, 0, 0]]}\n"
        "- {mem_type: cpu, matrix: [[0, 0, 0], [5, 0, 4K], [0, 0, 0]], xfer_op: READ}\n"
    )
    done = run("traffic", str(path), "--local", "3", "--check-consistency", "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["wrong"] == 0
    assert document["is_complete"]
    assert [each["bytes"] for each in document["patterns"]] == [1_120_256, 4101]
    assert set(document["transports"]) == {"0-1", "0-2", "2-1"}
    assert len(done.stdout.splitlines()) == 3
    assert "rank 2 → rank 1: trunkline over " in done.stderr


def test_workers_that_want_different_things(model: str, etcd_endpoint: str) -> None:
    arguments = ["requests", "--model", model, "--etcd-endpoints", etcd_endpoint, "--benchmark-group", "kv", "--isl"]
    workers = [
        subprocess.Popen([*COMMAND, *arguments, isl], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        for isl in ("100", "200")
    ]
    said = [worker.communicate(timeout=100)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [1, 1]
    assert [each for each in said if "workers want different things: the workload is" not in each] == []
