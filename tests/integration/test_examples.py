"""The examples run as their users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from trunkline.testing.s3 import REGION, S3Server

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only"),
    pytest.mark.skipif(find_spec("obstore") is None, reason="obstore is not installed"),
]


def run(*arguments: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env={**os.environ, "UCX_NET_DEVICES": "lo", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_storage_tiers_in_folders(tmp_path: Path) -> None:
    said = run(str(EXAMPLES / "storage_tiers.py"), "--folder", str(tmp_path), "--blocks", "40", "--block-bytes", "5000")
    assert "spilled: 20 blocks by POSIX" in said
    assert "spilled: 20 blocks by OBJ" in said
    assert "read back: 40 blocks by POSIX+OBJ" in said
    assert said.endswith("all blocks are back\n40 of 40 blocks are what they were\n")
    assert list(tmp_path.iterdir()) == []


def test_storage_tiers_with_s3(tmp_path: Path) -> None:
    pytest.importorskip("moto", reason="moto, the S3 server, is not installed")
    with S3Server(tmp_path / "s3").start() as server:
        server.client().create_bucket(Bucket="tier")
        environment = {
            "AWS_ACCESS_KEY_ID": server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
            "AWS_ENDPOINT_OVERRIDE": server.endpoint,
            "AWS_DEFAULT_REGION": REGION,
        }
        said = run(
            str(EXAMPLES / "storage_tiers.py"),
            *("--url", "s3://tier/run-1", "--folder", str(tmp_path), "--blocks", "20"),
            environment=environment,
        )
        assert said.endswith("20 of 20 blocks are what they were\n")
        kept = server.client().list_objects_v2(Bucket="tier", Prefix="run-1/kv/")
        assert kept["KeyCount"] == 10
