"""Where the users of the local etcd meet; the etcd itself is for the integration tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from trunkline.errors import ConfigurationError, StoreUnavailableError
from trunkline.etcd import local
from trunkline.etcd.local import LocalEtcd, running_endpoint, runtime_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def a_file(place: Path) -> None:
    place.touch(0o700)


def a_link_to_nowhere(place: Path) -> None:
    place.symlink_to(place.parent / "nowhere")


def a_link_to_a_good_one(place: Path) -> None:
    (place.parent / "good").mkdir(0o700)
    place.symlink_to(place.parent / "good")


def one_that_others_can_write(place: Path) -> None:
    place.mkdir()
    place.chmod(0o770)


@pytest.mark.parametrize("put", [a_file, a_link_to_nowhere, a_link_to_a_good_one, one_that_others_can_write])
def test_a_place_that_others_prepared_is_refused(
    put: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    put(tmp_path / f"trunkline-{os.getuid()}")
    with pytest.raises(ConfigurationError, match=f"trunkline-{os.getuid()}.*0700"):
        runtime_directory()


def test_a_place_that_can_t_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="XDG_RUNTIME_DIR"):
        runtime_directory()


def test_a_supervisor_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_binary", lambda: tmp_path)
    monkeypatch.setattr(local, "_SUPERVISOR", (sys.executable, "-c", "raise SystemExit('no python today')"))
    with pytest.raises(StoreUnavailableError, match="no python today"):
        LocalEtcd.acquire(directory=tmp_path, timeout=5)


def test_the_supervisor_imports_nothing_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a module of somebody else')")
    said = subprocess.run(
        [*local._SUPERVISOR, "--help"], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, check=False
    ).stderr
    assert b"somebody else" not in said


def test_where_none_runs_none_is_found_and_nothing_is_made(tmp_path: Path) -> None:
    assert running_endpoint(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_record_of_one_that_was_killed_does_not_count(tmp_path: Path) -> None:
    (tmp_path / local.START_LOCK).touch()
    (tmp_path / local.RECORD).write_text('{"endpoint": "http://127.0.0.1:1", "pid": 1, "directory": "/nowhere"}')
    assert running_endpoint(tmp_path) is None
    assert (tmp_path / local.RECORD).exists()
