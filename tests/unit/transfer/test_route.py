from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trunkline.backend.contract import Capabilities, Cost
from trunkline.backend.plugins.loopback import LoopbackBackend
from trunkline.errors import NoBackendError
from trunkline.memory.kind import MemoryKind
from trunkline.transfer.engine import Engine
from trunkline.transfer.route import Candidate, Route, Work, candidates, choose
from trunkline.transfer.target import Target

DRAM, FILE = MemoryKind.DRAM, MemoryKind.FILE
BOTH = frozenset({DRAM})
SEGMENT = np.array([[4096, 4096, 0]], np.uint64)
SLOT = np.zeros(1, np.int32)
SMALL, LARGE = Work(DRAM, DRAM, 1, 8), Work(DRAM, DRAM, 1, 1 << 30)


def backend(name: str, **capabilities: Any) -> LoopbackBackend:
    made = LoopbackBackend("a")
    made.name = name
    made.capabilities = Capabilities(BOTH, **capabilities)
    return made


class Link:
    name = "peer"

    def __init__(self, obstacle: str | None = None) -> None:
        self.obstacle = obstacle


def engine_of(*backends: LoopbackBackend) -> Engine:
    engine = Engine("a", backends)
    for name, each in engine.capabilities.items():
        if not each.keyless:
            engine.home.section.add(name, DRAM, SEGMENT, SLOT)
    return engine


def peer(*names: str, **links: Any) -> Target:
    made: dict[str, Any] = {name: Link() for name in names}
    target = Target("peer", {**made, **links})
    for name in target.links:
        if name != "KEYLESS":
            target.section.add(name, DRAM, SEGMENT, SLOT)
    return target


QUICK = Cost(start=1e-6, row=0.0, rate=1e9)
WIDE = Cost(start=1e-3, row=0.0, rate=1e10)


def test_takes_what_costs_least_for_the_size() -> None:
    engine = engine_of(backend("WIDE", remote_kinds=BOTH, cost=WIDE), backend("QUICK", remote_kinds=BOTH, cost=QUICK))
    target = peer("WIDE", "QUICK")
    assert choose(engine, target, SMALL).backend == "QUICK"
    assert choose(engine, target, LARGE).backend == "WIDE"
    assert choose(engine, target, SMALL, {"WIDE"}).backend == "WIDE"


def test_of_equal_ones_the_first() -> None:
    engine = engine_of(backend("ONE", remote_kinds=BOTH), backend("TWO", remote_kinds=BOTH))
    assert choose(engine, peer("TWO", "ONE"), SMALL) == Route("ONE", "ONE", "ONE")
    assert choose(engine, peer("TWO"), SMALL).backend == "TWO"


def test_an_obstacle_sends_it_another_way() -> None:
    engine = engine_of(backend("QUICK", remote_kinds=BOTH, cost=QUICK), backend("SLOW", remote_kinds=BOTH))
    blocked: Any = Link("on another host")
    target = peer("SLOW", QUICK=blocked)
    assert choose(engine, target, SMALL).backend == "SLOW"
    blocked.obstacle = None
    assert choose(engine, target, SMALL).backend == "QUICK"


def test_a_keyless_one_goes_by_the_account_of_another() -> None:
    engine = engine_of(
        backend("KEYLESS", remote_kinds=BOTH, keyless=True, cost=QUICK), backend("UCX", remote_kinds=BOTH)
    )
    assert choose(engine, peer("KEYLESS", "UCX"), SMALL) == Route("KEYLESS", "UCX", "UCX")
    alone = engine_of(backend("KEYLESS", remote_kinds=BOTH, keyless=True))
    with pytest.raises(NoBackendError, match="KEYLESS: no such memory is registered with another backend"):
        choose(alone, peer("KEYLESS"), SMALL)


def test_files_are_reached_within_the_agent_only() -> None:
    engine = engine_of(backend("DISK", own_kinds=frozenset({FILE})))
    engine.home.section.add("DISK", FILE, SEGMENT, SLOT)
    work = Work(DRAM, FILE, 1, 8)
    assert choose(engine, engine.home, work).backend == "DISK"
    own = Target("a", {}, is_self=True)
    assert choose(engine, own, work).backend == "DISK"
    with pytest.raises(NoBackendError, match="DISK: it does not reach FILE of a peer"):
        choose(engine, peer("DISK"), work)


def test_memory_that_is_not_registered_is_for_the_plan_to_name() -> None:
    engine = engine_of(backend("UCX", remote_kinds=BOTH))
    target = Target("peer", {"UCX": Link()})  # type: ignore[dict-item]
    assert choose(engine, target, SMALL) == Route.direct("UCX")
    assert candidates(engine, target, SMALL) == [
        Candidate("UCX", Route.direct("UCX"), "no such memory is registered with it", Cost().seconds(1, 8))
    ]


def test_says_of_each_why_not() -> None:
    engine = engine_of(backend("UCX", remote_kinds=BOTH), backend("DISK", own_kinds=frozenset({FILE})))
    with pytest.raises(NoBackendError, match=r"UCX: it does not move VRAM of this side; DISK: it does not move VRAM"):
        choose(engine, peer("UCX"), Work(MemoryKind.VRAM, DRAM, 1, 8))
    with pytest.raises(NoBackendError, match="UCX: the peer does not have it"):
        choose(engine, peer("OTHER"), SMALL)
    with pytest.raises(NoBackendError, match="UCX: it was not asked for"):
        choose(engine, peer("UCX"), SMALL, {"DISK"})


def test_a_quicker_one_in_the_way_is_the_rival_if_the_plan_would_fit_it() -> None:
    engine = engine_of(
        backend("UCX", remote_kinds=BOTH),
        backend("KEYLESS", remote_kinds=BOTH, keyless=True, cost=QUICK),
        backend("OTHER", remote_kinds=BOTH, cost=QUICK),
    )
    early, away = Link("not answered yet"), Link("on another host")
    assert choose(engine, peer("UCX", KEYLESS=early, OTHER=away), SMALL) == Route("UCX", "UCX", "UCX", rival="KEYLESS")
    assert choose(engine, peer("UCX", OTHER=away), SMALL).rival is None  # another account
    assert choose(engine, peer("UCX", KEYLESS=early), SMALL, {"UCX"}).rival is None  # not asked for
    assert choose(engine, peer("UCX", "KEYLESS"), SMALL) == Route("KEYLESS", "UCX", "UCX")
    slow = engine_of(backend("UCX", remote_kinds=BOTH), backend("KEYLESS", remote_kinds=BOTH, keyless=True, cost=WIDE))
    assert choose(slow, peer("UCX", KEYLESS=early), SMALL).rival is None
    with pytest.raises(NoBackendError, match="KEYLESS: not answered yet"):
        choose(engine, peer("UCX", KEYLESS=early), SMALL, {"KEYLESS"})
