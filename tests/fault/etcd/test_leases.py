"""Many leases of one client while etcd is killed, paused and cut off."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.fault.etcd.conftest import connect
from tests.fault.versions import every_etcd

from trunkline.testing.etcd import EtcdCluster, EtcdServer
from trunkline.testing.proxy import TcpProxy
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trunkline.etcd.client import EtcdClient
    from trunkline.etcd.lease import Lease

COUNT = 50


class Leases:
    """Leases of one client, and how often each was said to be lost."""

    def __init__(self, client: EtcdClient, ttl: float) -> None:
        self._client = client
        self.lost: Counter[int] = Counter()
        with ThreadPoolExecutor(8) as pool:
            self._leases = list(pool.map(lambda index: self._grant(ttl, index), range(COUNT)))

    def _grant(self, ttl: float, index: int) -> Lease:
        return self._client.grant(ttl, on_lost=lambda: self.lost.update([index]), timeout=30)

    def wait_for_refresh(self) -> None:
        """Wait until each was refreshed by a request sent after now."""
        now = time.monotonic()
        eventually(lambda: all(lease.refreshed_at > now for lease in self._leases))

    def wait_until_due(self) -> None:
        eventually(lambda: all(time.monotonic() > lease.due_at for lease in self._leases))

    def check_all_live(self) -> None:
        assert not self.lost
        assert all(self._client.time_to_live(lease.id, timeout=30) is not None for lease in self._leases)


@pytest.fixture(params=every_etcd())
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path, request.param) as running:
        yield running


def test_a_crash_and_a_restart_lose_none(server: EtcdServer) -> None:
    with connect(server.endpoint) as client:
        leases = Leases(client, 5)
        leases.wait_for_refresh()
        for _ in range(2):
            server.kill()
            server.start()
            leases.wait_for_refresh()
        leases.check_all_live()


def test_a_pause_longer_than_the_ttl_loses_each_once(server: EtcdServer) -> None:
    with connect(server.endpoint) as client:
        leases = Leases(client, 2)
        leases.wait_for_refresh()
        server.pause()
        time.sleep(5)  # etcd's clock decides
        assert not leases.lost
        server.resume()
        eventually(lambda: len(leases.lost) == COUNT)
        new = client.grant(5, timeout=30)
        granted_at = new.refreshed_at
        eventually(lambda: new.refreshed_at > granted_at)  # the thread and its stream go on
        assert not new.is_lost
        assert set(leases.lost.values()) == {1}


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_a_member_that_fails_loses_none(cluster: EtcdCluster, fault: str) -> None:
    with connect(cluster.url) as client:
        leases = Leases(client, 5)
        leases.wait_for_refresh()
        for member in cluster.members[:2]:  # the client sticks to the first, and then goes on to the second
            if fault == "killed":
                member.kill()
                leases.wait_for_refresh()
                member.start()
            else:
                member.pause()
                leases.wait_for_refresh()
                member.resume()
            member.wait_ready()
            leases.wait_for_refresh()
        leases.check_all_live()


def test_a_wire_that_loses_answers_is_given_up(server: EtcdServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trunkline.etcd.lease_keeper")
    with TcpProxy(server.port) as proxy, connect(proxy.endpoint) as client:
        leases = Leases(client, 10)
        leases.wait_for_refresh()
        proxy.mute()
        eventually(lambda: "answers stayed away" in caplog.text)
        proxy.cut()
        proxy.mend()
        leases.wait_for_refresh()
        leases.check_all_live()


def test_close_does_not_wait_for_answers(server: EtcdServer) -> None:
    with connect(server.endpoint) as client:
        leases = Leases(client, 2)
        leases.wait_for_refresh()
        server.pause()
        leases.wait_until_due()  # so refreshes are on their way
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < 10
        assert not leases.lost


HOLDER = """
import sys
from trunkline.etcd.client import EtcdClient
from trunkline.etcd.config import EtcdConfig
client = EtcdClient(EtcdConfig.parse(sys.argv[1], environment={}))
print(client.grant(6, on_lost=lambda: print("lost", flush=True), timeout=30).id, flush=True)
sys.stdin.read()
"""


def test_a_process_that_stood_still_refreshes_at_once(server: EtcdServer) -> None:
    arguments = [sys.executable, "-c", HOLDER, server.endpoint]
    with (
        connect(server.endpoint) as client,
        subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder,
    ):
        assert holder.stdin is not None
        assert holder.stdout is not None
        lease = int(holder.stdout.readline())
        eventually(lambda: (client.time_to_live(lease, timeout=30) or 0) < 5)
        holder.send_signal(signal.SIGSTOP)
        eventually(lambda: (client.time_to_live(lease, timeout=30) or 0) < 2)
        holder.send_signal(signal.SIGCONT)
        eventually(lambda: (client.time_to_live(lease, timeout=30) or 0) > 4)
        holder.send_signal(signal.SIGSTOP)
        eventually(lambda: client.time_to_live(lease, timeout=30) is None)
        holder.send_signal(signal.SIGCONT)
        assert holder.stdout.readline() == "lost\n"
        holder.stdin.close()
        assert holder.stdout.read() == ""
