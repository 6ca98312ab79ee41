"""Adapters of stand-ins for NVIDIA's agent, on an in-memory phone book."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from tests.unit.nixl.fake_agent import FakeAgent

from trunkline.directory import sharing as observers
from trunkline.directory.roster import SETTLE
from trunkline.nixl import NixlAdapter, adapt
from trunkline.store import open_store
from trunkline.testing.clock import FakeClock
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.directory.event import DirectoryEvent
    from trunkline.directory.watch import DirectoryWatch
    from trunkline.store.contract import Store

TTL = 10.0


class Bench:
    """Adapters on one store, whose clock stands still."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store: Store = open_store(f"memory://{uuid.uuid4().hex}", clock=self.clock)
        self.adapters: list[NixlAdapter] = []

    def adapt(self, agent: FakeAgent, *, takeover: bool = False, **attributes: str) -> NixlAdapter:
        adapter = adapt(
            agent, store=self.store, attributes=attributes, ttl=TTL, takeover=takeover, timeout=5, clock=self.clock
        )
        self.adapters.append(adapter)
        return adapter

    def peer(self, *, run: int = 1, **attributes: str) -> tuple[FakeAgent, NixlAdapter]:
        """Start ``peer`` (again), and have it publish."""
        agent = FakeAgent("peer", connection=b"run %d" % run)
        adapter = self.adapt(agent, takeover=run > 1, **attributes)
        adapter.publish()
        return agent, adapter

    def vanish(self, adapter: NixlAdapter) -> None:
        """Let an adapter's lease end without its knowing."""
        publisher = adapter._membership.publisher
        publisher._holder.is_closed = True  # it does not mend what follows
        session = publisher._holder.session
        assert session is not None
        self.store.revoke(session.lease.id, timeout=1)
        observer = adapter._membership.observer
        eventually(lambda: observer._roster.next_due is not None)
        self.clock.advance(SETTLE + 0.1)

    def close(self) -> None:
        for adapter in reversed(self.adapters):
            adapter.close(drain=0)
        self.store.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()
    observers.close_all()


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent("me")


@pytest.fixture
def adapter(bench: Bench, agent: FakeAgent) -> NixlAdapter:
    return bench.adapt(agent)


def until(watch: DirectoryWatch, kind: type[DirectoryEvent], of: NixlAdapter | None = None) -> list[DirectoryEvent]:
    """Take events up to the first of a kind (and of an agent's run), that one included."""
    seen: list[DirectoryEvent] = []

    def has_come() -> bool:
        while (event := watch.next(0)) is not None:
            seen.append(event)
            if isinstance(event, kind) and (of is None or event.agent.incarnation == of.incarnation):  # type: ignore[union-attr]
                return True
        return False

    eventually(has_come, 20)
    return seen
