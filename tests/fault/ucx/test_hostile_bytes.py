"""No bytes of a peer kill us: mutants of worker addresses and remote keys, in child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import trunkline

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only")


def run_mutants(what: str, seed: int, count: int, **environment: str) -> None:
    ended = subprocess.run(
        [sys.executable, Path(__file__).with_name("mutants.py"), what, str(seed), str(count)],
        env=os.environ | {"PYTHONPATH": str(Path(trunkline.__file__).parents[1])} | environment,
        capture_output=True,
        text=True,
        errors="replace",  # UCX prints what it was given
        timeout=300,
        check=False,
    )
    last = ended.stderr.strip().splitlines()[-1] if ended.stderr.strip() else ""
    assert ended.returncode == 0, f"seed {seed} of {what}: died with {ended.returncode} on mutant {last}"
    assert int(ended.stdout.strip().splitlines()[-1].split()[-1]) > 0, "no mutant got as far as UCX"


@pytest.mark.parametrize("what", ["address", "key"])
def test_a_thousand_mutants_kill_nobody(what: str) -> None:
    run_mutants(what, 0, 1000)


@pytest.mark.parametrize("environment", [{"UCX_TLS": "tcp"}, {"UCX_ADDRESS_VERSION": "v2"}], ids=str)
def test_other_forms_of_address(environment: dict[str, str]) -> None:
    run_mutants("address", 7, 300, **environment)


@pytest.mark.soak
@pytest.mark.parametrize("what", ["address", "key"])
@pytest.mark.parametrize("seed", range(100, 110))
def test_many_mutants(what: str, seed: int) -> None:
    run_mutants(what, seed, 20_000)
