"""The same calls on NIXL's own API and on ours give the same, but for the differences that are meant."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import pytest

Said: TypeAlias = dict[str, dict[str, str]]

ROOT = Path(__file__).parents[3]
SCENARIOS = [
    "enumerations",
    "descriptor_lists",
    "lists_from_all_sorts",
    "backends",
    "memory",
    "metadata",
    "transfers",
    "telemetry",
    "prepared",
    "notifications",
]

# Step: (theirs, ours). Each stands with its reason in docs/nixl-compatibility.md.
MEANT: dict[str, dict[str, tuple[str, str]]] = {
    "enumerations": {"etcdWatchTimeout": ("'0:00:05'", "'0:00:30'")},
    "descriptor_lists": {
        "sliced array": ("!ValueError", "(12, 13, 14)"),
        "negative index": ("!TypeError", "!IndexError"),
    },
    "lists_from_all_sorts": {"deserialised garbage": ("!UnpicklingError", "!nixlMismatchError")},
    "backends": {"name with a slash": ("nixl_agent", "!nixlInvalidParamError")},
    "memory": {
        "empty list": ("!nixlBackendError", "!nixlInvalidParamError"),
        "zero bytes": ("nixlRegDList", "!nixlInvalidParamError"),
    },
    "metadata": {
        "unknown": ("(False, False)", "(False, True)"),
        "another of that name": ("!nixlNotAllowedError", "b'b'"),
        "truncated": ("!nixlNotAllowedError", "!nixlMismatchError"),
    },
    "transfers": {"zero bytes": ("nixl_xfer_handle", "!nixlInvalidParamError")},
    "notifications": {"by a backend": ("!TypeError", "None")},
    "store": {"full under the part's label": ("None", "!nixlInvalidParamError")},
}


def run(package: str, kind: str, **environment: str) -> Said:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("NIXL_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.nixl.api_process", package, kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env={**inherited, "UCX_NET_DEVICES": "lo", "NIXL_LOG_LEVEL": "FATAL", **environment},
    )
    assert done.returncode == 0, f"{package}: {done.stdout}\n{done.stderr}"
    found: Said = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def both() -> tuple[Said, Said]:
    """What NIXL said, and what ours did."""
    if importlib.util.find_spec("nixl_cu12") is None:
        pytest.skip("nixl-cu12 is not installed: pip install --no-deps nixl-cu12")
    return run("nixl_cu12", "alone"), run("trunkline.nixl", "alone")


def compare(scenario: str, theirs: Said, ours: Said) -> None:
    assert len(theirs[scenario]) > 4
    assert list(theirs[scenario]) == list(ours[scenario])
    differences = {
        step: (outcome, ours[scenario][step])
        for step, outcome in theirs[scenario].items()
        if outcome != ours[scenario][step]
    }
    assert differences == MEANT.get(scenario, {})


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, both: tuple[Said, Said]) -> None:
    compare(scenario, *both)


def test_scenario_with_a_store(etcd_endpoint: str, namespace: str) -> None:
    if importlib.util.find_spec("nixl_cu12") is None:
        pytest.skip("nixl-cu12 is not installed: pip install --no-deps nixl-cu12")
    theirs, ours = (
        run(package, "store", NIXL_ETCD_ENDPOINTS=etcd_endpoint, NIXL_ETCD_NAMESPACE=f"{namespace}/{package}")
        for package in ("nixl_cu12", "trunkline.nixl")
    )
    compare("store", theirs, ours)
