from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

from trunkline.etcd.keeper import Keeper

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def sleeper(keeper: Keeper | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"], process_group=None if keeper is None else keeper.group)


def test_its_group_ends_with_it_and_the_directory_is_removed() -> None:
    with Keeper("trunkline-test-") as keeper:
        ended = sleeper(keeper)
        ended.kill()
        running, other = sleeper(keeper), sleeper()
        (keeper.directory / "data").mkdir()
    assert running.wait() == -signal.SIGKILL
    assert not keeper.directory.exists()
    assert ended.wait() == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()
    keeper.close()  # idempotent


def test_a_keeper_that_was_killed_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Keeper("trunkline-test-") as keeper:
        os.kill(keeper.group, signal.SIGKILL)
        os.waitid(os.P_PID, keeper.group, os.WEXITED | os.WNOWAIT)
        running = sleeper(keeper)
    assert list(tmp_path.iterdir()) == []
    running.kill()
    running.wait()
