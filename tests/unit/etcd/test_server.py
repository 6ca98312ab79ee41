"""The etcd process, with scripts in its place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from trunkline.errors import ConfigurationError, StoreUnavailableError
from trunkline.etcd.server import EtcdServer

if TYPE_CHECKING:
    from pathlib import Path


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_start_that_is_interrupted_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: EtcdServer) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(EtcdServer, "is_healthy", interrupt)
    server = EtcdServer(tmp_path / "data", binary=script(tmp_path / "etcd", "exec sleep 60"))
    with pytest.raises(KeyboardInterrupt):
        server.start()
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_one_that_ends_is_quoted(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path / "data", binary=script(tmp_path / "etcd", "echo no disk today; exit 3"))
    with pytest.raises(StoreUnavailableError, match=r"status 3.*no disk today"):
        server.start()
    server.close()


def test_a_binary_that_can_t_be_run_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "etcd"
    binary.write_bytes(b"\x7fELF of another machine")
    binary.chmod(0o755)
    with pytest.raises(ConfigurationError, match=f"{binary}.*Exec format error"):
        EtcdServer(tmp_path / "data", binary=binary).start()
