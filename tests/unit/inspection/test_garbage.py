from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.inspection.conftest import NAMESPACE, blob

from trunkline.errors import ConfigurationError
from trunkline.inspection.garbage import LeftOver, Plan, Reason, collect, find_left_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.directory import Directory
    from trunkline.store.contract import Store


def keys_of(store: Store) -> list[str]:
    return [entry.key for entry in store.list("", keys_only=True, timeout=5).entries]


def summary(plan: Plan) -> dict[tuple[str, Reason], tuple[int, bool]]:
    return {(each.owner, each.reason): (len(each.entries), each.is_chosen) for each in plan.left_over}


def test_what_has_a_lease_is_never_left_over(store: Store, directory: Directory, put: Callable[..., int]) -> None:
    """Nor is anything of an agent that has one: not a marker that NIXL wrote under its name, nor loose chunks."""
    with directory.open_publisher("a", incarnation="1" * 32) as publisher:
        publisher.publish(blob("a"), catalog=b"{}")
        put(f"{NAMESPACE}/a/")
        put(f"{NAMESPACE}/a/other", blob("a"))
        put(f"{NAMESPACE}/.chunks/a/0")
        assert find_left_over(store, NAMESPACE, nixl_agents="*", timeout=5).left_over == ()


def test_own_keys_without_a_lease_go(store: Store, put: Callable[..., int]) -> None:
    for key in (".presence/a", ".catalog/a", ".chunks/a/3/0", ".chunks/b/0"):
        put(f"{NAMESPACE}/{key}")
    plan = find_left_over(store, NAMESPACE, timeout=5)
    assert summary(plan) == {("a", Reason.OWN): (3, True), ("b", Reason.OWN): (1, True)}
    assert keys_of(store) == sorted(
        f"{NAMESPACE}/{key}" for key in (".presence/a", ".catalog/a", ".chunks/a/3/0", ".chunks/b/0")
    )
    collected = collect(store, plan, timeout=5)
    assert (len(collected.deleted), collected.kept) == (4, ())
    assert keys_of(store) == []


def test_nixls_own_go_only_by_name(store: Store, put: Callable[..., int]) -> None:
    for key in ("n-0/", "n-0/metadata", "n-1/", "n-1/metadata", "marker/"):
        put(f"{NAMESPACE}/{key}")
    kept = find_left_over(store, NAMESPACE, timeout=5)
    assert summary(kept) == {
        ("marker", Reason.MARKER): (1, False),
        ("n-0", Reason.NIXL): (2, False),
        ("n-1", Reason.NIXL): (2, False),
    }
    assert collect(store, kept, timeout=5).deleted == ()
    named = find_left_over(store, NAMESPACE, nixl_agents="n-[1]", timeout=5)
    assert [each.owner for each in named.chosen] == ["n-1"]
    assert collect(store, named, timeout=5).deleted == (f"{NAMESPACE}/n-1/", f"{NAMESPACE}/n-1/metadata")
    assert keys_of(store) == [f"{NAMESPACE}/marker/", f"{NAMESPACE}/n-0/", f"{NAMESPACE}/n-0/metadata"]


def test_labels_older_than_their_agents_start_are_stale(store: Store, put: Callable[..., int]) -> None:
    put(f"{NAMESPACE}/n/metadata")
    put(f"{NAMESPACE}/n/")
    plan = find_left_over(store, NAMESPACE, timeout=5)
    assert summary(plan) == {("n", Reason.STALE): (1, True), ("n", Reason.MARKER): (1, False)}
    put(f"{NAMESPACE}/n/metadata")  # the new one has published meanwhile
    assert collect(store, plan, timeout=5).kept == (f"{NAMESPACE}/n/metadata",)
    assert summary(find_left_over(store, NAMESPACE, timeout=5)) == {("n", Reason.NIXL): (2, False)}


def test_what_changes_meanwhile_stays_with_all_of_its_owner(store: Store, put: Callable[..., int]) -> None:
    put(f"{NAMESPACE}/n/")
    put(f"{NAMESPACE}/n/metadata")
    plan = find_left_over(store, NAMESPACE, nixl_agents="n", timeout=5)
    put(f"{NAMESPACE}/n/metadata")
    collected = collect(store, plan, timeout=5)
    assert (collected.deleted, len(collected.kept)) == ((), 2)
    assert len(keys_of(store)) == 2


def test_an_agent_that_comes_meanwhile_keeps_its_chunks(
    store: Store, directory: Directory, put: Callable[..., int]
) -> None:
    put(f"{NAMESPACE}/.chunks/a/0")
    plan = find_left_over(store, NAMESPACE, timeout=5)
    with directory.open_publisher("a", incarnation="1" * 32):
        assert collect(store, plan, timeout=5).kept == (f"{NAMESPACE}/.chunks/a/0",)


def test_benchmark_groups_that_nobody_holds(store: Store, put: Callable[..., int]) -> None:
    lease = store.grant(30, timeout=5)
    for prefix in ("xferbench", f"{NAMESPACE}/xferbench"):
        put(f"{prefix}/crashed/size", b"2")
        put(f"{prefix}/crashed/barrier/0/1")
        put(f"{prefix}/running/size", b"2")
        put(f"{prefix}/running/rank/0", lease=lease.id)
    for namespace, prefix in ((NAMESPACE, f"{NAMESPACE}/xferbench"), ("xferbench", "xferbench")):
        plan = find_left_over(store, namespace, timeout=5)
        assert summary(plan) == {("crashed", Reason.BENCHMARK): (2, True)}
        assert collect(store, plan, timeout=5).deleted == (f"{prefix}/crashed/barrier/0/1", f"{prefix}/crashed/size")
    assert find_left_over(store, "xferbench/running", timeout=5).left_over == ()
    assert len(keys_of(store)) == 4
    lease.close()


def test_nothing_outside_the_namespace_is_looked_at(store: Store, put: Callable[..., int]) -> None:
    for key in (
        "/production/.chunks/a/0",
        "/prod",
        "/prod2/n/",
        "/other/.presence/a",
        f"{NAMESPACE}/deeper/ns/a/metadata",
    ):
        put(key)
    assert find_left_over(store, NAMESPACE, nixl_agents="*", timeout=5).left_over == ()
    with pytest.raises(ConfigurationError, match="does not start with a slash"):
        find_left_over(store, "prod", timeout=5)


def test_a_plan_for_other_keys_is_refused(store: Store, put: Callable[..., int]) -> None:
    put("/other/x")
    (entry,) = store.list("/other/", timeout=5).entries
    plan = Plan(NAMESPACE, f"{NAMESPACE}/", (LeftOver("x", Reason.OWN, (entry,), is_chosen=True),), 1)
    with pytest.raises(ConfigurationError, match="not to be deleted"):
        collect(store, plan, timeout=5)
    assert keys_of(store) == ["/other/x"]


@pytest.mark.parametrize("namespace", ["/nixl/agents", "/nixl/agents/"])
def test_the_default_namespace_is_cleaned_in_both_forms(store: Store, put: Callable[..., int], namespace: str) -> None:
    put("/nixl/agents/.chunks/a/0")
    put("/nixl/agents//n/metadata")
    plan = find_left_over(store, namespace, nixl_agents="n", timeout=5)
    assert len(collect(store, plan, timeout=5).deleted) == 2


def test_many_keys_go_in_parts(store: Store, put: Callable[..., int]) -> None:
    for number in range(250):
        put(f"{NAMESPACE}/.chunks/a/{number}")
    assert len(collect(store, find_left_over(store, NAMESPACE, timeout=5), timeout=5).deleted) == 250
