"""Workers that die, are interrupted, don't come, or want something else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.integration.bench.conftest import SLOW

from trunkline.testing.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    import subprocess

    from tests.integration.bench.conftest import Bench


def start_pair(bench: Bench, path: Path) -> list[subprocess.Popen[str]]:
    """Start two workers, and return once they have made a row."""
    workers = [bench.worker(*SLOW, "--rank", 0, "--json", path), bench.worker(*SLOW, "--rank", 1)]
    assert workers[0].stdout is not None
    lines = [workers[0].stdout.readline() for _ in range(2)]
    assert lines[1].startswith("4096"), (lines, workers[0].communicate()[1])
    return workers


def check_partial(path: Path) -> str:
    """Check that what had been measured was kept; return the notes."""
    document = json.loads(path.read_text())
    assert not document["is_complete"]
    assert document["rows"][0]["block_size"] == 4096
    assert len(document["rows"]) < 15
    return " ".join(document["notes"])


def test_a_killed_target_ends_the_initiator_which_keeps_its_rows(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    initiator, target = start_pair(bench, path)
    target.kill()
    _, said = initiator.communicate(timeout=PATIENCE)
    assert initiator.returncode == 1
    assert "Traceback" not in said
    assert "broke off" in check_partial(path)
    began = time.monotonic()
    eventually(lambda: not bench.keys())  # the killed one's with its leases, so that a next run need not wait
    assert time.monotonic() - began < 15, "its keys were there for longer than the group's TTL of 5 s by far"


def test_a_killed_initiator_ends_the_target_which_says_who_was_lost(bench: Bench, tmp_path: Path) -> None:
    initiator, target = start_pair(bench, tmp_path / "out.json")
    initiator.kill()
    _, said = target.communicate(timeout=PATIENCE)
    assert target.returncode == 1
    assert "lost worker 0" in said
    assert f"pid {initiator.pid}" in said


@pytest.mark.parametrize("which", [0, 1])
def test_an_interrupted_worker_ends_all_and_rows_are_kept(bench: Bench, tmp_path: Path, which: int) -> None:
    path = tmp_path / "out.json"
    workers = start_pair(bench, path)
    workers[which].send_signal(signal.SIGINT)
    said = [worker.communicate(timeout=PATIENCE)[1] for worker in workers]
    assert workers[which].returncode == 130, said
    assert workers[1 - which].returncode == 1, said
    assert "broke off" in check_partial(path)
    assert bench.keys() == []


def test_an_interrupted_local_run_leaves_no_process(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    run = bench.commands.start(
        "bench", "--local", 2, "--device-list", "lo", *SLOW, "--json", path, start_new_session=True
    )
    assert run.stdout is not None
    assert [run.stdout.readline() for _ in range(2)][1].startswith("4096")
    children = children_of(run.pid)
    assert len(children) == 3  # a worker, an etcd, and who ends them if the run is killed
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=PATIENCE)
    assert run.returncode == 130
    assert "interrupted" in check_partial(path)
    eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_of_a_killed_local_run_nothing_stays(bench: Bench, tmp_path: Path) -> None:
    bench.commands.environment["TMPDIR"] = str(tmp_path)
    run = bench.commands.start("bench", "--local", 2, "--device-list", "lo", *SLOW)
    assert run.stdout is not None
    assert [run.stdout.readline() for _ in range(2)][1].startswith("4096")
    children = children_of(run.pid)
    assert len(children) == 3
    assert len(list(tmp_path.iterdir())) == 1
    run.kill()
    eventually(lambda: not any(is_running(child) for child in children))
    assert list(tmp_path.iterdir()) == []


def test_a_killed_local_worker_ends_the_run(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    run = bench.commands.start("bench", "--local", 2, "--device-list", "lo", *SLOW, "--json", path)
    assert run.stdout is not None
    assert [run.stdout.readline() for _ in range(2)][1].startswith("4096")
    worker = next(child for child in children_of(run.pid) if b"--rank" in command_of(child))
    os.kill(worker, signal.SIGKILL)
    _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1, said
    assert "Traceback" not in said
    check_partial(path)


def test_a_worker_that_does_not_come_is_named(bench: Bench) -> None:
    worker = bench.worker("--rank", 0, "--timeout", 2)
    out, said = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 1
    assert not out
    assert "1 of 2 workers did not come within 2" in said
    assert "missing: rank 1" in said
    assert bench.keys() == []


def test_workers_that_want_different_things_both_say_so(bench: Bench) -> None:
    workers = [bench.worker("--rank", 0, "--num-iter", 5), bench.worker("--rank", 1, "--num-iter", 6)]
    for worker in workers:
        _, said = worker.communicate(timeout=PATIENCE)
        assert worker.returncode == 1
        assert "--num-iter is 5 at rank 0" in said
        assert "and 6 at rank 1" in said
    assert bench.keys() == []


def test_workers_of_groups_of_different_sizes_say_so(bench: Bench) -> None:
    workers = [bench.worker("--rank", 0, "--timeout", 8), bench.worker("--rank", 1, "--workers", 4, "--timeout", 8)]
    said = [worker.communicate(timeout=PATIENCE)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [1, 1], said
    assert any("2 workers" in each and "4" in each for each in said), said


def test_an_etcd_that_is_not_there_is_named(bench: Bench) -> None:
    worker = bench.worker("--rank", 0, "--timeout", 2, endpoint="http://127.0.0.1:1")
    _, said = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 1
    assert "127.0.0.1:1" in said
    assert "Traceback" not in said


def is_running(pid: int) -> bool:
    """Return whether a process is there that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_without_a_store_the_one_that_nobody_named_is_not_waited_for(bench: Bench) -> None:
    """The default endpoint's port is free on a machine that runs tests; a longer timeout is not used up."""
    with socket.socket() as probe:
        if probe.connect_ex(("localhost", 2379)) == 0:
            pytest.skip("an etcd runs at the default endpoint")
    found = bench.commands.run("bench", "--timeout", 600)
    assert found.returncode == 1
    assert "waiting for 2 workers of group 'default', 600 s at most" in found.stderr
    assert "--local 2 to start two workers and an etcd on this machine" in found.stderr
