"""Takes that break: the taker or the offerer is killed midway."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.integration.cli.conftest import Commands

MIB = 1 << 20
CHUNK_SIZE = 16 << 10
"""Small, so that taking the file takes some seconds, and something is left when a process is killed."""

DEADLINE = 60.0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "in"
    path.write_bytes(os.urandom(256 * MIB))
    return path


def start_and_wait_for_part(commands: Commands, tmp_path: Path) -> subprocess.Popen[str]:
    """Start to take, and return when some of it was written."""
    taking = commands.start("take", "big", "-o", tmp_path / "out", "--devices", "lo")
    part = tmp_path / ".out.trunkline-part"
    until = time.monotonic() + DEADLINE
    while not part.exists() or part.stat().st_size < 8 * MIB:
        assert taking.poll() is None, taking.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)
    return taking


def take_again(commands: Commands, tmp_path: Path, source: Path) -> None:
    taken = commands.take("big", tmp_path / "out")
    assert taken.returncode == 0, taken.stderr
    assert "were there already" in taken.stderr
    assert (tmp_path / "out").read_bytes() == source.read_bytes()
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_taker_that_was_killed_goes_on_where_it_was(commands: Commands, tmp_path: Path, source: Path) -> None:
    commands.offer(source, "big", "--chunk-size", CHUNK_SIZE)
    taking = start_and_wait_for_part(commands, tmp_path)
    taking.kill()
    taking.communicate()
    assert not (tmp_path / "out").exists()
    take_again(commands, tmp_path, source)


def test_a_taker_that_was_interrupted_goes_on_where_it_was(commands: Commands, tmp_path: Path, source: Path) -> None:
    commands.offer(source, "big", "--chunk-size", CHUNK_SIZE)
    taking = start_and_wait_for_part(commands, tmp_path)
    taking.terminate()
    _, said = taking.communicate(timeout=DEADLINE)
    assert taking.returncode == 130, said
    assert not (tmp_path / "out").exists()
    take_again(commands, tmp_path, source)


@pytest.mark.parametrize("transport", ["default", pytest.param("tcp", marks=pytest.mark.soak)])
def test_an_offerer_that_was_killed_leaves_no_half_file(
    commands: Commands, tmp_path: Path, source: Path, transport: str
) -> None:
    if transport == "tcp":
        commands.environment |= {"UCX_TLS": "tcp", "TRUNKLINE_CMA": "off"}
    offering = commands.offer(source, "big", "--chunk-size", CHUNK_SIZE)
    taking = start_and_wait_for_part(commands, tmp_path)
    offering.kill()
    _, said = taking.communicate(timeout=DEADLINE)
    assert taking.returncode == 1, said
    assert "run the same command again" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    commands.offer(source, "big", "--chunk-size", CHUNK_SIZE)
    take_again(commands, tmp_path, source)
