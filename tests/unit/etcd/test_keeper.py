from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

from trunkline.etcd.keeper import Keeper

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


def test_what_is_watched_ends_with_it_and_the_directory_is_removed() -> None:
    with Keeper("trunkline-test-") as keeper:
        ended = sleeper()
        ended.kill()
        ended.wait()
        keeper.watch(ended.pid)
        running, other = sleeper(), sleeper()
        keeper.watch(running.pid)
        (keeper.directory / "data").mkdir()
    assert running.wait() == -signal.SIGKILL
    assert not keeper.directory.exists()
    assert other.poll() is None
    other.kill()
    other.wait()
    keeper.close()  # idempotent


def test_a_keeper_that_was_killed_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Keeper("trunkline-test-") as keeper:
        (pid,) = children_that_run(str(keeper.directory))
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        running = sleeper()
        keeper.watch(running.pid)
    assert list(tmp_path.iterdir()) == []
    running.kill()
    running.wait()


def children_that_run(argument: str) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-f", argument, "-P", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return [int(line) for line in found.stdout.split()]
