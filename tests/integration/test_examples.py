"""The examples run as their users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trunkline.testing.s3 import REGION

if TYPE_CHECKING:
    from trunkline.testing.s3 import S3Server

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only")


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


def test_storage_tiers_with_s3(tmp_path: Path, s3: S3Server, bucket: str) -> None:
    said = run(
        str(EXAMPLES / "storage_tiers.py"),
        *("--url", f"s3://{bucket}/run-1", "--folder", str(tmp_path), "--blocks", "20"),
        environment={
            "AWS_ACCESS_KEY_ID": s3.access_key_id,
            "AWS_SECRET_ACCESS_KEY": s3.secret_access_key,
            "AWS_ENDPOINT_OVERRIDE": s3.endpoint,
            "AWS_DEFAULT_REGION": REGION,
        },
    )
    assert said.endswith("20 of 20 blocks are what they were\n")
    kept = s3.client().list_objects_v2(Bucket=bucket, Prefix="run-1/kv/")
    assert kept["KeyCount"] == 10
