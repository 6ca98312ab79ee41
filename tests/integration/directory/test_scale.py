"""A fleet of agents in one etcd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchmarks import fleet

from trunkline.etcd.server import EtcdServer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.soak
def test_a_thousand_agents_join_and_none_loses_its_lease(tmp_path: Path) -> None:
    ttl, processes, agents = 10.0, 4, 1000
    with EtcdServer(tmp_path).start() as server:
        result = fleet.run(server.endpoint, agents, processes=processes, ttl=ttl, idle=2.2 * ttl)
    assert result.joining < fleet.PATIENCE
    assert (result.lost, result.departures) == (0, 0)
    assert result.listing.agents == agents
    assert result.idle.proposals == result.joined.proposals  # an idle fleet writes nothing
    assert result.idle.streams["Watch"] == processes


def test_a_small_fleet_sees_itself(etcd_endpoint: str) -> None:
    result = fleet.run(etcd_endpoint, 20, processes=2, ttl=5, idle=0.5)
    assert (result.lost, result.departures) == (0, 0)
    assert result.listing.agents == 20
