"""Looking at an etcd that only real NIXL agents use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from trunkline import open_store
from trunkline.cli.main import app
from trunkline.inspection.garbage import Reason, collect, find_left_over
from trunkline.metadata.key import NIXL_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.nixl.conftest import Nixl

SIZE = 9 << 20
"""Bytes that a real agent registers, as in nixl_process.py."""


@pytest.fixture
def run(etcd_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command with no namespace set, and return what its JSON says."""
    monkeypatch.delenv("NIXL_ETCD_NAMESPACE", raising=False)
    monkeypatch.setattr("trunkline.cli.main.signal.signal", lambda *_: None)

    def command(*arguments: str, status: int = 0) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--store", etcd_endpoint, "--json"])
        assert result.exit_code == status, result.output
        return json.loads(result.stdout)

    return command


def test_a_real_agent_is_seen_read_and_cleared_away_once_dead(
    start_nixl: Callable[..., Nixl], etcd_endpoint: str, run: Callable[..., Any]
) -> None:
    nixl = start_nixl(NIXL_ETCD_ENDPOINTS=etcd_endpoint)
    nixl.ask("publish")
    (listed,) = run("agents", nixl.name)
    assert (listed["namespace"], listed["state"], listed["lease"]) == (NIXL_NAMESPACE, "no lease", None)
    assert listed["memory"] == {"DRAM": SIZE}
    shown = run("show", nixl.name)
    (section,) = shown["published"][0]["sections"]
    assert [(region["address"], region["length"]) for region in section["regions"]] == [(nixl.ask("address"), SIZE)]
    pinged = run("ping", nixl.name, "--devices", "lo", "-n", "2")
    assert (len(pinged["read_us"]), pinged["read_bytes"], pinged["is_nixl"]) == (2, 8, True)
    findings = run("doctor", "--devices", "lo", "--timeout", "10")["findings"]
    assert any(each["check"] == "leases" and nixl.name in each["message"] for each in findings)

    nixl.kill()
    assert run("ping", nixl.name, "--devices", "lo", "--timeout", "5", status=1)["error"]
    assert run("gc", "--apply")["deleted"] == []
    with open_store(etcd_endpoint) as store:
        plan = find_left_over(store, "/nixl/agents", nixl_agents=nixl.name, timeout=10)
        assert [(each.owner, each.reason) for each in plan.chosen] == [(nixl.name, Reason.NIXL)]
        assert len(collect(store, plan, timeout=10).deleted) == 2
    assert run("agents", nixl.name) == []
