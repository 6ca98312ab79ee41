"""Which backend an agent's transfers take, and what it says of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline import Agent, DescriptorList, File, typed
from trunkline.agent import backends as opening_of_backends
from trunkline.backend import registry
from trunkline.backend.contract import Capabilities, Cost
from trunkline.backend.plugins.loopback import LoopbackBackend
from trunkline.errors import (
    ConfigurationError,
    DescriptorError,
    MemoryRegistrationError,
    NotRegisteredError,
    ShapeMismatchError,
)
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DRAM = frozenset({MemoryKind.DRAM})
SWAPPED = [1, 0, 3, 2]  # blocks of which none follows its neighbour


class Other(LoopbackBackend):
    name = "OTHER"
    capabilities = Capabilities(DRAM, own_kinds=DRAM, cost=Cost(start=1.0, row=0.0, rate=1e9))


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent("a", store="", backends=["loopback", Other("a")]) as made:
        yield made


def test_takes_the_cheapest_and_explains_it(agent: Agent) -> None:
    one, two = agent.register(np.arange(256, dtype=np.uint8)), agent.register(np.zeros(256, np.uint8))
    pair = agent.prepare(one, two)
    found = agent.explain(pair)
    assert found.backend == "LOOPBACK"
    assert not found.is_measured
    assert "LOOPBACK: taken" in str(found)
    assert "OTHER: could, but takes longer" in str(found)
    handle = pair.write().wait()
    assert handle.telemetry.backend == "LOOPBACK"
    assert agent.explain(handle).backend == "LOOPBACK"


def test_the_last_large_transfer_says_what_the_next_will_take(agent: Agent) -> None:
    size = 1 << 20
    one, two = agent.register(np.ones(size, np.uint8)), agent.register(np.zeros(size, np.uint8))
    handle = agent.write(one, to=two).wait()
    found = agent.explain(handle)
    assert found.is_measured
    assert found.seconds == pytest.approx(handle.telemetry.total_us / 1e6)


def test_one_is_taken_by_name(agent: Agent) -> None:
    one, two = agent.register(np.arange(256, dtype=np.uint8)), agent.register(np.zeros(256, np.uint8))
    assert agent.write(one, to=two, backend="other").wait().telemetry.backend == "OTHER"
    with pytest.raises(ConfigurationError, match="no backend 'UCX' open"):
        agent.write(one, to=two, backend="ucx")


def test_blocks_are_split_over_several(agent: Agent) -> None:
    source, sink = np.arange(4096, dtype=np.uint8).reshape(64, 64), np.zeros((64, 64), np.uint8)
    one, two = agent.register(source), agent.register(sink)
    order = np.random.default_rng(1).permutation(64)
    handle = agent.write(one[order], to=two, backend=["loopback", "other"], notify=b"both").wait()
    assert handle.telemetry.backend == "LOOPBACK+OTHER"
    assert handle.telemetry.blocks == 64
    np.testing.assert_array_equal(sink, source[order])
    note = agent.wait_notification(timeout=5)
    assert (note.sender, note.payload, note.ok) == ("a", b"both", True)


def test_a_notification_follows_a_backend_that_carries_none(agent: Agent) -> None:
    one, two = agent.register(np.arange(256, dtype=np.uint8)), agent.register(np.zeros(256, np.uint8))
    handle = agent.write(one, to=two, notify=b"1").wait()
    handle.post(b"2").wait()
    assert [note.payload for note in agent.take_notifications()] == [b"1", b"2"]


def test_a_backend_opened_later_gets_what_was_registered(agent: Agent) -> None:
    with Agent("b", store="", backends=["loopback"]) as other:
        view = other.register(np.ones(64, np.uint8))
        sink = other.register(np.zeros(64, np.uint8))
        other.engine.add_backend(late := Other("b"))
        with pytest.raises(NotRegisteredError):
            other.write(view, to=sink, backend="other").wait()
        other._memory.adopt(late)
        assert other.write(view, to=sink, backend="other").wait().ok
        assert late.outstanding == 2
        other.deregister(view)
        assert late.outstanding == 1


def test_backends_says_what_is_there_and_what_is_not(agent: Agent) -> None:
    reports = {report.name: report for report in agent.backends()}
    assert list(reports)[:2] == ["LOOPBACK", "OTHER"]
    assert reports["LOOPBACK"].is_open
    assert str(reports["LOOPBACK"]) == (
        "LOOPBACK: open: BLOCK+DRAM+FILE+OBJECT here, BLOCK+DRAM+FILE+OBJECT within the agent"
    )
    assert not reports["UCX"].is_open
    assert reports["UCX"].reason is None
    assert str(reports["UCX"]) == "UCX: not open"


def test_what_is_named_or_made_already_is_explained(agent: Agent) -> None:
    one, two = agent.register(np.ones((4, 1 << 20), np.uint8)), agent.register(np.zeros((4, 1 << 20), np.uint8))
    named = agent.prepare(one, two, backend="other")
    assert (agent.explain(named).backend, agent.explain(named).backends) == ("OTHER", ("OTHER",))
    assert "LOOPBACK: it was not asked for" in str(agent.explain(named))
    made = agent.explain(named.write().wait())
    assert made.backend == "OTHER"
    assert "OTHER: taken" in str(made)
    assert "LOOPBACK: could as well" in str(made)
    split = agent.prepare(one[SWAPPED], two, backend=["loopback", "other"])
    assert agent.explain(split).backends == ("LOOPBACK", "OTHER")
    assert agent.explain(split).seconds is None
    handle = split.write().wait()
    for found in (agent.explain(handle), agent.explain(split)):
        assert found.backend == "LOOPBACK+OTHER"
        assert found.is_measured
        assert str(found).count("taken") == 2


def test_what_can_not_be_moved_is_explained(agent: Agent) -> None:
    one, two = agent.register(np.ones(64, np.uint8)), agent.register(np.zeros(64, np.uint8))
    pair = agent.prepare(one, two)
    agent.deregister(one)
    agent.deregister(two)
    found = agent.explain(pair)
    assert (found.backend, found.backends, found.seconds) == (None, (), None)
    assert str(found).count("no such memory is registered with it") == 2


def test_an_estimate_is_never_below_what_any_transfer_takes(agent: Agent) -> None:
    one, two = agent.register(np.ones(1 << 20, np.uint8)), agent.register(np.zeros(1 << 20, np.uint8))
    agent.write(one, to=two).wait()
    found = agent.explain(agent.prepare(one[:1], two[:1]))
    assert found.is_measured
    assert found.seconds == LoopbackBackend.capabilities.cost.start


@pytest.mark.parametrize(("names", "alone"), [(["loopback", "other"], "LOOPBACK"), (["other", "loopback"], "LOOPBACK")])
def test_a_block_goes_to_whose_share_holds_more_of_it(agent: Agent, names: list[str], alone: str) -> None:
    one, two = agent.register(np.ones((4, 64), np.uint8)), agent.register(np.zeros((4, 64), np.uint8))
    assert agent.write(one[:1], to=two[:1], backend=names).wait().telemetry.backend == alone
    assert agent.write(one[SWAPPED], to=two, backend=names).wait().telemetry.backend == "+".join(names).upper()


def test_blocks_that_are_split_are_checked_as_a_whole(agent: Agent) -> None:
    one, two = agent.register(np.ones((8, 64), np.uint8)), agent.register(np.zeros((8, 64), np.uint8))
    both = ["loopback", "other"]
    with pytest.raises(DescriptorError, match="remote blocks 0 and 7 overlap"):
        agent.write(one, to=two[[0, 1, 2, 3, 4, 5, 6, 0]], backend=both)
    rows = DescriptorList.of(MemoryKind.DRAM, [(two.address + 64 * row, 64, 0) for row in range(8)])
    with pytest.raises(ShapeMismatchError, match="6 local blocks against 8 remote"):
        agent.read(rows, into=rows.select(range(6)), peer="a", backend=both)


def test_parts_of_different_kinds_are_checked_as_a_whole(agent: Agent, tmp_path: Path) -> None:
    memory = agent.register(np.zeros((4, 64), np.uint8))
    disk = agent.register(typed(File(tmp_path / "far", "w+", size=256), "U8", (4, 64)))
    with pytest.raises(DescriptorError, match="local blocks 1 and 2 overlap"):
        agent.read([(memory[2], memory[0]), (memory[3], memory[1]), (disk[0], memory[1])])


def test_one_that_refuses_what_is_registered_is_not_opened(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[LoopbackBackend] = []

    class Refuses(LoopbackBackend):
        name = "REFUSES"

        def register(self, kind: MemoryKind, segments: Any, names: Sequence[str] = ()) -> Any:
            if self.outstanding:
                raise MemoryRegistrationError("one is enough")
            return super().register(kind, segments, names)

    def make(name: str, agent_name: str) -> LoopbackBackend:
        made.append(Refuses(agent_name))
        return made[-1]

    monkeypatch.setattr(opening_of_backends, "create_backend", make)
    one, two = agent.register(np.ones(64, np.uint8)), agent.register(np.zeros(64, np.uint8))
    with pytest.raises(MemoryRegistrationError, match="one is enough"):
        agent.create_backend("refuses")
    assert [report.name for report in agent.backends() if report.is_open] == ["LOOPBACK", "OTHER"]
    assert made[0].outstanding == 0
    assert agent.write(one, to=two).wait().ok
    agent.deregister(one)


def test_one_opened_while_memory_is_taken_back_gets_it_if_it_stays(agent: Agent) -> None:
    memory = agent.register(np.ones(64, np.uint8))
    registration = agent._memory.find(memory)
    agent._memory.hide(registration)
    backend = Other("a")
    monkey = "LATE"
    backend.name = monkey
    agent._memory.adopt(backend)
    agent.engine.add_backend(backend)
    assert len(agent.engine.home.section.lookup(monkey, MemoryKind.DRAM)) == 0
    agent._memory.show(registration)
    assert len(agent.engine.home.section.lookup(monkey, MemoryKind.DRAM)) == 1
    agent.deregister(memory)
    assert backend.outstanding == 0


def test_what_is_open_is_not_opened_to_report_it(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[str] = []
    create = registry.create_backend

    def count(name: str, agent_name: str) -> Any:
        probed.append(name)
        return create(name, agent_name)

    monkeypatch.setattr(registry, "create_backend", count)
    monkeypatch.setattr(registry, "_makeable", set())
    usable = [report.name for report in agent.backends() if report.reason is None and not report.is_open]
    assert "loopback" not in probed
    assert {name.upper() for name in probed} >= set(usable) >= {"POSIX", "UCX"}
    probed.clear()
    again = [report.name for report in agent.backends() if report.reason is None and not report.is_open]
    assert again == usable
    assert not {name.upper() for name in probed} & set(usable)
