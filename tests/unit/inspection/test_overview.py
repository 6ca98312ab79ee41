from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from tests.unit.inspection.conftest import NAMESPACE, blob

from trunkline.inspection.overview import MEMORY_BUDGET, Overview, memory_by_kind, read_overview
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.codec import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trunkline.directory import Directory
    from trunkline.store.contract import Store


def look(
    store: Store,
    pattern: str = "*",
    *,
    attributes: Mapping[str, str] | None = None,
    memory_budget: int | None = MEMORY_BUDGET,
) -> Overview:
    return read_overview(
        store, NAMESPACE, pattern=pattern, attributes=attributes, memory_budget=memory_budget, timeout=5
    )


def test_an_agent_at_a_glance(store: Store, directory: Directory) -> None:
    before = time.time()
    with directory.open_publisher(
        "a", incarnation="1" * 32, ttl=20, attributes={"role": "decode"}, backends=["UCX"]
    ) as publisher:
        revision = publisher.publish(blob("a", 4096, 100), catalog=b"{}")
        publisher.update(state="draining")
        (agent,) = look(store).agents
    assert (agent.name, agent.namespace, agent.state, agent.is_nixl) == ("a", NAMESPACE, "draining", False)
    assert (agent.incarnation, agent.backends, agent.attributes) == ("1" * 32, ("UCX",), {"role": "decode"})
    assert agent.labels == {"metadata": len(blob("a", 4096, 100))}
    assert (agent.memory, agent.catalog_size) == ({"DRAM": 4196}, 2)
    assert agent.lease != 0
    assert agent.ttl == 20
    assert 18 <= (agent.lease_remaining or 0) <= 20
    assert agent.pid > 0
    assert before - 0.01 <= agent.opened_at <= time.time()
    assert agent.age is not None
    assert 0 <= agent.age < 60
    assert agent.revision == revision + 1


def test_one_that_published_nothing_is_listed_as_such(store: Store, directory: Directory) -> None:
    with directory.open_publisher("a", incarnation="1" * 32):
        (agent,) = look(store).agents
    assert (agent.state, agent.memory) == ("unpublished", None)


def test_nixls_own_have_no_lease(store: Store, put: Callable[..., int]) -> None:
    put(f"{NAMESPACE}/started/")
    put(f"{NAMESPACE}/theirs/")
    put(f"{NAMESPACE}/theirs/metadata", blob("theirs", 7))
    put(f"{NAMESPACE}/theirs/conn_info_1", blob("theirs"))
    started, theirs = look(store).agents
    assert (started.name, started.state, started.is_nixl) == ("started", "unpublished", True)
    assert (theirs.state, theirs.lease_remaining, theirs.memory) == ("no lease", None, {"DRAM": 7})
    assert theirs.labels == {"metadata": len(blob("theirs", 7)), "conn_info_1": len(blob("theirs"))}
    assert look(store, memory_budget=0).agents[1].labels == {"metadata": None, "conn_info_1": None}


def test_what_is_left_of_ours_for_a_moment_is_nobody(store: Store, put: Callable[..., int]) -> None:
    lease = store.grant(30, timeout=5)
    put(f"{NAMESPACE}/going/metadata", b"x", lease=lease.id)
    assert look(store).agents == ()
    lease.close()


@pytest.mark.parametrize(
    ("record", "state"),
    [(b"nonsense", "broken"), (json.dumps({"format": 9, "min_reader": 9}).encode(), "too new"), (b"{}", "broken")],
)
def test_records_that_can_not_be_read_are_listed(
    store: Store, put: Callable[..., int], record: bytes, state: str
) -> None:
    put(f"{NAMESPACE}/.presence/a", record)
    (agent,) = look(store).agents
    assert (agent.name, agent.state, agent.record_size) == ("a", state, len(record))


def test_names_and_attributes_select(store: Store, directory: Directory, put: Callable[..., int]) -> None:
    put(f"{NAMESPACE}/d-nixl/metadata", blob("d-nixl"))
    with (
        directory.open_publisher("d-0", incarnation="1" * 32, attributes={"role": "decode"}),
        directory.open_publisher("p-0", incarnation="2" * 32, attributes={"role": "prefill"}),
    ):
        assert [agent.name for agent in look(store).agents] == ["d-0", "d-nixl", "p-0"]
        assert [agent.name for agent in look(store, "d-*").agents] == ["d-0", "d-nixl"]
        assert [agent.name for agent in look(store, attributes={"role": "prefill"}).agents] == ["p-0"]
        assert look(store, "p-*", attributes={"role": "decode"}).agents == ()


def test_more_metadata_than_the_budget_is_not_read(store: Store, directory: Directory) -> None:
    with (
        directory.open_publisher("small", incarnation="1" * 32) as small,
        directory.open_publisher("large", incarnation="2" * 32) as large,
    ):
        small.publish(blob("small", 1))
        large.publish(blob("large", *[1] * 1000))
        found = look(store, memory_budget=1000)
        assert {agent.name: agent.memory for agent in found.agents} == {"small": {"DRAM": 1}, "large": None}
        assert found.unread == 1
        whole = look(store, memory_budget=None)
        assert {agent.name: agent.memory for agent in whole.agents} == {"small": {"DRAM": 1}, "large": {"DRAM": 1000}}
        assert (whole.unread, look(store, memory_budget=0).unread) == (0, 0)


def test_metadata_in_chunks_counts_as_far_as_the_budget_goes(
    store: Store, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.directory.session.MAX_TRANSACTION_SIZE", 10_000)
    with directory.open_publisher("a", incarnation="1" * 32) as publisher:
        publisher.publish(blob("a", *[1] * 1000))
        (agent,) = look(store).agents
        assert (agent.memory, agent.labels["metadata"]) == ({"DRAM": 1000}, len(blob("a", *[1] * 1000)))
        assert look(store, memory_budget=1000).agents[0].memory is None


def test_metadata_that_is_not_what_the_record_says_counts_for_nothing(
    store: Store, directory: Directory, put: Callable[..., int]
) -> None:
    with directory.open_publisher("a", incarnation="1" * 32) as publisher:
        publisher.publish(blob("a", 1))
        put(f"{NAMESPACE}/a/metadata", blob("a", 1, 2))
        assert look(store).agents[0].memory is None
    put(f"{NAMESPACE}/b/metadata", b"nonsense")
    assert look(store, "b").agents[0].memory is None


def test_many_agents_with_many_labels_are_read_in_parts(store: Store, put: Callable[..., int]) -> None:
    """More labels than a transaction takes."""
    for number in range(130):
        put(f"{NAMESPACE}/theirs/{number}", blob("theirs", number + 1))
    (agent,) = look(store).agents
    assert len(agent.labels) == 130
    # each label's region begins at the same address and has another length
    assert agent.memory == {"DRAM": sum(range(1, 131))}


def test_a_region_that_two_backends_offer_counts_once() -> None:
    parts = [
        decode(blob("a", 5, 6)),
        decode(blob("a", 5, 6, backend="OTHER")),
        decode(blob("a", 3, kind=MemoryKind.VRAM)),
        decode(blob("a", 2**63 - 1, 2**63 - 1, kind=MemoryKind.FILE)),
    ]
    assert memory_by_kind(parts) == {"DRAM": 11, "VRAM": 3, "FILE": 2**64 - 2}
