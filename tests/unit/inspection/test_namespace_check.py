from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.unit.inspection.conftest import NAMESPACE, blob

from trunkline.inspection.finding import Finding, Severity
from trunkline.inspection.keyspace import Keyspace
from trunkline.inspection.namespace_check import check_agents, check_leases, check_namespace
from trunkline.inspection.overview import AgentOverview, Overview, read_overview

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.directory import Directory
    from trunkline.store.contract import Store


def worst(findings: list[Finding]) -> tuple[Severity, str]:
    """Return the severity of the only finding that is not ok, and all messages."""
    bad = [finding for finding in findings if finding.severity is not Severity.OK]
    assert len(bad) == 1, findings
    assert bad[0].advice
    return bad[0].severity, bad[0].message


def look(store: Store, namespace: str = NAMESPACE) -> Overview:
    return read_overview(store, namespace, timeout=5)


def test_all_is_well(store: Store, directory: Directory) -> None:
    with directory.open_publisher("a", incarnation="1" * 32) as publisher:
        publisher.publish(blob("a"))
        found = look(store)
    findings = [*check_namespace(found), *check_leases(found), *check_agents(found)]
    assert [finding.severity for finding in findings] == [Severity.OK] * 3


def test_the_two_forms_of_the_default_namespace(store: Store, put: Callable[..., int]) -> None:
    put("/nixl/agents/a/metadata")
    put("/nixl/agents//b/metadata")
    severity, message = worst(check_namespace(look(store, "/nixl/agents")))
    assert severity is Severity.WARNING
    assert "double slash" in message


def test_a_slash_too_many_or_too_few(store: Store, put: Callable[..., int]) -> None:
    put("/prod/a/metadata")
    put("/prod//b/metadata")
    severity, message = worst(check_namespace(look(store, "/prod")))
    assert severity is Severity.PROBLEM
    assert message.endswith("as if /prod/ were their namespace: b")
    severity, message = worst(check_namespace(look(store, "/prod/")))
    assert severity is Severity.WARNING
    assert "agents of /prod are elsewhere" in message


def test_nobody_is_there(store: Store, put: Callable[..., int]) -> None:
    assert worst(check_namespace(look(store))) == (Severity.WARNING, "nobody is under /prod/")
    put("/prod/eu/agents/a/metadata")
    severity, message = worst(check_namespace(look(store)))
    assert severity is Severity.WARNING
    assert "1 other keys" in message


def test_keys_without_a_lease(store: Store, put: Callable[..., int]) -> None:
    for number in range(7):
        put(f"/prod/n-{number}/metadata")
    severity, message = worst(check_leases(look(store)))
    assert severity is Severity.WARNING
    assert "n-4 and 2 more" in message
    put("/prod/.catalog/a")
    assert len(check_leases(look(store))) == 2


def overview(*agents: AgentOverview) -> Overview:
    return Overview(agents, Keyspace(NAMESPACE, (), (), 1))


def test_agents_in_trouble() -> None:
    good = AgentOverview("a", NAMESPACE, "ready", ttl=30, lease=1, lease_remaining=21, opened_at=time.time())
    for change, words in (
        ({"lease_remaining": 14.0}, "half of the lease: a"),
        ({"state": "broken"}, "can't be read: a"),
        ({"state": "too new"}, "newer readers: a"),
        ({"opened_at": time.time() + 60}, "in the future by their own clocks: a"),
    ):
        severity, message = worst(check_agents(overview(replace(good, **change))))
        assert severity is Severity.WARNING
        assert words in message
    assert [finding.severity for finding in check_agents(overview(good))] == [Severity.OK]


def test_metadata_in_chunks_matters_where_there_are_nixl_agents() -> None:
    large = AgentOverview("a", NAMESPACE, "ready", labels={"metadata": (1 << 20) + 1})
    assert [finding.severity for finding in check_agents(overview(large))] == [Severity.OK]
    nixl = AgentOverview("n", NAMESPACE, "no lease", is_nixl=True, labels={"metadata": None})
    severity, message = worst(check_agents(overview(large, nixl)))
    assert severity is Severity.WARNING
    assert "can't see: a" in message
