"""The etcd process, with scripts in its place."""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path

import pytest

from trunkline.errors import ConfigurationError, StoreUnavailableError
from trunkline.etcd.server import EtcdServer, free_port


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_ports_are_different_and_none_that_a_connection_is_given() -> None:
    ports = [free_port() for _ in range(100)]
    assert len(set(ports)) == 100
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(10_000 <= port < min(first, 32_768) for port in ports)


def test_a_port_that_somebody_listens_on_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        port = taken.getsockname()[1]
        monkeypatch.setattr("trunkline.etcd.server._ports", itertools.count(port - 10_000))
        assert free_port() > port


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
