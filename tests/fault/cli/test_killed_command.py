"""Commands that start an etcd of their own, and are killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.fault.bench.test_workers import children_of, is_running

from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.cli.conftest import Commands


@pytest.mark.parametrize(("command", "count"), [(("etcd",), 2), (("demo", "--blocks", "16"), 3)])
def test_of_a_killed_command_nothing_stays(
    commands: Commands, tmp_path: Path, command: tuple[str, ...], count: int
) -> None:
    commands.environment["TMPDIR"] = str(tmp_path)
    run = commands.start(*command)
    eventually(lambda: len(children_of(run.pid)) >= count)
    children = children_of(run.pid)
    run.kill()
    eventually(lambda: not any(is_running(child) for child in children))
    assert [path for path in tmp_path.iterdir() if path.name.startswith("trunkline-")] == []
