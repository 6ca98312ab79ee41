"""Many threads use one pair of agents (stress.py), in a process of its own, which a bad pointer would kill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="UCX's wheels are for Linux only")


def run(seed: int, seconds: float) -> None:
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("stress.py")), str(seed), str(seconds)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=seconds + 300,
    )


@pytest.mark.usefixtures("transport")
def test_five_seconds_of_stress() -> None:
    run(3, 5)


@pytest.mark.soak
@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("seed", range(20))
def test_twenty_times_half_a_minute_of_stress(seed: int) -> None:
    run(seed, 30)
