"""An agent that follows others, over a hand-driven backend and a clock that stands still."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent
from trunkline.directory import sharing as observers
from trunkline.directory.event import DirectoryEvent, Synced
from trunkline.directory.roster import SETTLE
from trunkline.store import open_store
from trunkline.testing.clock import FakeClock
from trunkline.testing.stepped import SteppedBackend
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.agent.follower import Follower
    from trunkline.directory import DirectoryWatch

TTL = 10.0


class Told:
    """What a watch told, in short."""

    def __init__(self, watch: DirectoryWatch) -> None:
        self.watch = watch
        self.events: list[DirectoryEvent] = []

    def take(self) -> list[DirectoryEvent]:
        while (event := self.watch.next(0)) is not None:
            self.events.append(event)
        return self.events

    def kinds(self) -> list[type[DirectoryEvent]]:
        return [type(event) for event in self.take()]

    def of_peers(self) -> list[type[DirectoryEvent]]:
        """Events but for Synced, which may come before or after what was published just now."""
        return [kind for kind in self.kinds() if kind is not Synced]

    def until(self, kind: type[DirectoryEvent], count: int = 1) -> DirectoryEvent:
        eventually(lambda: self.kinds().count(kind) >= count, 20)
        return [event for event in self.events if type(event) is kind][count - 1]


class Bench:
    """``decode-0`` follows ``prefill-0``; the others' keys hang on leases that end with their stores."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = open_store(f"memory://{uuid.uuid4().hex}", clock=self.clock)
        self.agents: list[Agent] = []
        self.memory = np.arange(64, dtype=np.uint8)
        self.decode = self.open("decode-0")

    def open(
        self, name: str, *, reload: bool = True, takeover: bool = False, attributes: dict[str, str] | None = None
    ) -> Agent:
        agent = Agent(
            name,
            store=self.store,
            backends=[SteppedBackend(name)],
            ttl=TTL,
            reload=reload,
            takeover=takeover,
            attributes=attributes,
            clock=self.clock,
        )
        self.agents.append(agent)
        return agent

    def prefill(self, name: str = "prefill-0", *, takeover: bool = False, **attributes: str) -> Agent:
        agent = self.open(name, takeover=takeover, attributes=attributes)
        agent.register(self.memory, name="kv")
        agent.publish()
        return agent

    def watch(self, agent: Agent | None = None, *, include_nixl: bool = False) -> Told:
        told = Told((agent or self.decode).watch(include_nixl=include_nixl))
        told.until(Synced)
        return told

    def vanish(self, agent: Agent) -> None:
        """Take an agent's record away, as if its lease had run out, and let that be settled."""
        publisher = agent._membership.publisher  # type: ignore[union-attr]
        publisher._holder.is_closed = True  # it does not mend what follows
        session = publisher._holder.session
        assert session is not None
        self.store.revoke(session.lease.id, timeout=1)
        observer = self.follower.observer
        eventually(lambda: observer._roster.next_due is not None)
        self.clock.advance(SETTLE)

    @property
    def follower(self) -> _Seen:
        return _Seen(self.decode)

    def close(self) -> None:
        for agent in self.agents:
            agent.close(drain=0)
        self.store.close()
        observers.close_all()


class _Seen:
    def __init__(self, agent: Agent) -> None:
        assert agent._membership is not None
        assert agent._follower is not None
        self.observer = agent._membership.observer
        self.itself: Follower = agent._follower


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def is_loaded(bench: Bench, incarnation: str) -> bool:
    peer = bench.decode._peers.find("prefill-0")
    return peer is not None and peer.incarnation == incarnation and peer.gone is None
