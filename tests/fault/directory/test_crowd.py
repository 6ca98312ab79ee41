"""Two hundred agents lose their leases at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.fault.directory.fleet import TTL, Fleet

from trunkline.testing.etcd import EtcdServer, etcd_binaries

if TYPE_CHECKING:
    from pathlib import Path

PROCESSES = 4
EACH = 50


def lose_all_leases(fleet: Fleet, server: EtcdServer) -> None:
    groups = [tuple(f"agent-{group}-{number}" for number in range(EACH)) for group in range(PROCESSES)]
    members = fleet.start(*groups)
    server.pause()
    time.sleep(2 * TTL)  # how long etcd is away is the fault
    server.resume()
    fleet.check_seen()
    for member in members:
        assert not [event for event in member.ask("events") if event[0] == "left"]
    fleet.check()


def test_two_hundred_come_back_at_once(tmp_path: Path) -> None:
    """etcd is away for two TTLs: all are there again, with what they published, and nobody was said to have left."""
    with EtcdServer(tmp_path, binary=etcd_binaries()[-1]).start() as server, Fleet(server.endpoint) as fleet:
        lose_all_leases(fleet, server)


@pytest.mark.soak
def test_two_hundred_come_back_at_once_on_every_etcd(fleet: Fleet, server: EtcdServer) -> None:
    """As above."""
    lose_all_leases(fleet, server)
