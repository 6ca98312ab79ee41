"""Two network namespaces as two hosts: the workers share nothing but a link, and the etcd is on one of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from trunkline.etcd.server import EtcdServer
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2's ip"),
]

FIRST, SECOND = "10.213.7.1", "10.213.7.2"
QUICK = (
    "--max-block-size",
    "1MiB",
    "--num-iter",
    "20",
    "--warmup-iter",
    "2",
    "--op-type",
    "READ",
    "--check-consistency",
)
SLOW = ("--rate", "20", "--num-iter", "20", "--warmup-iter", "0")


class Host:
    """A network namespace with one interface, and what runs there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.interface = f"{name}-0"
        self._running: list[subprocess.Popen[str]] = []

    def inside(self, *command: object) -> list[str]:
        """Return a command line that runs a command there."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def worker(self, rank: int, *arguments: object) -> subprocess.Popen[str]:
        """Start a worker over TCP: namespaces on one machine would else share memory."""
        command = self.inside(
            sys.executable, "-m", "trunkline", "bench", "--etcd-endpoints", f"http://{FIRST}:2379", "--rank", rank,
            "--device-list", self.interface, *arguments,
        )  # fmt: skip
        environment = {**os.environ, "UCX_TLS": "tcp"}
        environment.pop("UCX_NET_DEVICES", None)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        self._running.append(process)
        return process

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


class HostEtcd(EtcdServer):
    """An etcd on one of them."""

    def __init__(self, directory: Path, host: Host) -> None:
        client = f"http://{FIRST}:2379"
        super().__init__(directory, arguments=(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"))
        self._host = host

    def command(self) -> list[str]:
        return self._host.inside(*super().command())


@contextmanager
def made(name: str) -> Iterator[Host]:
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
    host = Host(name)
    try:
        yield host
    finally:
        host.close()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """Two of them with a link between, and an etcd on the first."""
    with made(f"tl{os.getpid()}a") as one, made(f"tl{os.getpid()}b") as other:
        link = ["ip", "link", "add", one.interface, "netns", one.name, "type", "veth"]
        subprocess.run([*link, "peer", "name", other.interface, "netns", other.name], check=True)
        for host, address in ((one, FIRST), (other, SECOND)):
            subprocess.run(host.inside("ip", "address", "add", f"{address}/24", "dev", host.interface), check=True)
            for interface in ("lo", host.interface):
                subprocess.run(host.inside("ip", "link", "set", interface, "up"), check=True)
        with HostEtcd(tmp_path / "etcd", one).start(timeout=0):
            yield one, other


def check_run(hosts: tuple[Host, Host]) -> list[dict[str, object]]:
    """Run a benchmark between them; return its rows."""
    workers = [hosts[0].worker(0, *QUICK, "--json", "-"), hosts[1].worker(1, *QUICK)]
    found = [worker.communicate(timeout=2 * PATIENCE) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], found
    rows: list[dict[str, object]] = json.loads(found[0][0])["rows"]
    assert len(rows) == 9
    assert {row["wrong"] for row in rows} == {0}
    assert {row["transport"] for row in rows} == {f"tcp/{hosts[0].interface}"}
    return rows


def test_two_hosts(hosts: tuple[Host, Host]) -> None:
    check_run(hosts)


def test_two_hosts_with_a_slow_link_that_loses_packets(hosts: tuple[Host, Host]) -> None:
    for host in hosts:
        netem = host.inside(
            "tc", "qdisc", "add", "dev", host.interface, "root", "netem", "delay", "1ms", "loss", "0.5%"
        )
        done = subprocess.run(netem, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"this kernel has no netem: {done.stderr.strip()}")
    for row in check_run(hosts):
        latency = row["latency_p50_us"]
        assert isinstance(latency, float)
        assert latency > 2_000, "there and back takes 2 ms at least"


def test_a_link_that_goes_away_ends_both_and_rows_are_kept(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, other = hosts
    path = tmp_path / "out.json"
    workers = [
        one.worker(0, *SLOW, "--timeout", 10, "--json", path),
        other.worker(1, *SLOW, "--timeout", 10),
    ]
    assert workers[0].stdout is not None
    lines = [workers[0].stdout.readline() for _ in range(2)]
    assert lines[1].startswith("4096"), (lines, workers[0].communicate()[1])
    subprocess.run(one.inside("ip", "link", "set", one.interface, "down"), check=True)
    said = [worker.communicate(timeout=2 * PATIENCE)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [1, 1], said
    assert not any("Traceback" in each for each in said), said
    document = json.loads(path.read_text())
    assert not document["is_complete"]
    assert document["rows"][0]["block_size"] == 4096
