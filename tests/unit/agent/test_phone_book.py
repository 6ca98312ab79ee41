"""What an agent does with the phone book, and what it says when it can't: over the memory store and loopback."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline import Agent
from trunkline.agent.phone_book import Health
from trunkline.directory.publisher import Publisher
from trunkline.errors import (
    ClosedError,
    ConfigurationError,
    NoStoreError,
    NotRegisteredError,
    StoreUnavailableError,
    SupersededError,
    TrunklineError,
)
from trunkline.metadata.key import DEFAULT_NAMESPACE, MetadataKey
from trunkline.store import open_store
from trunkline.testing.clock import FakeClock
from trunkline.testing.faulty_store import Fault, FaultyStore
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("NIXL_ETCD_ENDPOINTS", raising=False)
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def agent(store: str) -> Iterator[Agent]:
    with Agent("prefill-0", store=store, backends=("loopback",), attributes={"role": "prefill"}) as agent:
        yield agent


@pytest.mark.parametrize(
    "call",
    [
        Agent.publish,
        Agent.withdraw,
        Agent.watch,
        Agent.peers,
        lambda agent: agent.fetch("b"),
        lambda agent: agent.fetch_many(["b"]),
    ],
)
def test_without_a_store_every_call_says_what_to_give(store: str, call: Callable[[Agent], object]) -> None:
    with (
        Agent("alone", backends=("loopback",)) as agent,
        pytest.raises(NoStoreError, match=r"store=.*NIXL_ETCD_ENDPOINTS"),
    ):
        call(agent)


def test_health_without_a_store_and_after_the_end(store: str) -> None:
    with Agent("alone", backends=("loopback",)) as agent:
        assert agent.health() == Health(is_live=True, is_ready=True, lost=None, store_age=None, sessions=0, peers=0)
        agent.drain()
    assert not agent.health().is_live
    with pytest.raises(ClosedError):
        agent.drain()


def test_an_agent_is_ready_once_published_until_it_drains(agent: Agent) -> None:
    assert agent.health() == Health(is_live=True, is_ready=False, lost=None, store_age=0.0, sessions=1, peers=0)
    agent.publish()
    assert agent.health().is_ready
    agent.drain()
    health = agent.health()
    assert (health.is_live, health.is_ready) == (True, False)


def test_publishing_nothing_new_costs_no_write(agent: Agent) -> None:
    agent.register(np.zeros(64, np.uint8), name="kv")
    revision = agent.publish()
    assert agent.publish() == revision
    agent.register(np.zeros(64, np.uint8), name="more")
    assert agent.publish() > revision


@pytest.mark.parametrize("arguments", [{"connection_info": True}, {"segments": []}])
def test_the_full_set_takes_no_part(agent: Agent, arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="full set"):
        agent.publish(**arguments)  # type: ignore[arg-type]


def test_a_part_has_to_say_something_and_to_be_registered(agent: Agent, store: str) -> None:
    with pytest.raises(ConfigurationError):
        agent.publish(label="nothing")
    with Agent("other", store=store, backends=("loopback",)) as other:
        foreign = other.register(np.zeros(64, np.uint8), name="kv")
        with pytest.raises(NotRegisteredError):
            agent.publish(label="part", segments=foreign)


def test_fetching_itself_or_a_string_of_names_is_refused(agent: Agent) -> None:
    with pytest.raises(ConfigurationError, match="itself"):
        agent.fetch("prefill-0")
    with pytest.raises(ConfigurationError, match="list of names"):
        agent.fetch_many("prefill-1")


def test_attributes_change_in_one_write_and_others_see_them(agent: Agent, store: str) -> None:
    agent.publish()
    with Agent("decode-0", store=store, backends=("loopback",)) as other:
        revision = agent.update_attributes({"role": "decode"})
        assert agent.attributes == {"role": "decode"}
        eventually(lambda: other.peers().get("prefill-0") is not None)
        eventually(lambda: other.peers()["prefill-0"].attributes == {"role": "decode"})
        assert agent.update_attributes({"role": "decode"}) == revision
        assert "prefill-0" not in agent.peers()


def test_one_whose_name_was_taken_says_so(agent: Agent, store: str) -> None:
    agent.publish()
    with Agent("prefill-0", store=store, backends=("loopback",), takeover=True):
        eventually(lambda: not agent.health().is_live)
        assert agent.lost is not None
        with pytest.raises(SupersededError):
            agent.publish()


def test_a_closed_agent_refuses(agent: Agent) -> None:
    agent.close()
    with pytest.raises(TrunklineError):
        agent.publish()
    with pytest.raises(ClosedError):
        agent.watch()


def test_peers_are_given_time_to_hear_of_what_was_withdrawn_and_of_nothing_else(store: str) -> None:
    clock = FakeClock()
    with Agent("prefill-0", store=store, backends=("loopback",), clock=clock) as agent, ThreadPoolExecutor(1) as thread:
        try:
            published = agent.register(np.zeros(64, np.uint8), name="kv")
            agent.publish()
            clock.advance(60)
            scratch = agent.register(np.zeros(64, np.uint8), name="scratch")
            thread.submit(agent.deregister, scratch, drain=30).result(timeout=10)  # nobody has heard of it: no wait

            under_way = thread.submit(agent.deregister, published, drain=20)
            catalog = MetadataKey(DEFAULT_NAMESPACE, "prefill-0").catalog
            with open_store(store) as other:
                eventually(lambda: other.get(catalog, timeout=1)[0] is None)
            check_takes(under_way, 20, clock)
        finally:
            clock.advance(1000)  # whoever waits still
            agent.close(drain=0)


def test_memory_that_nobody_has_heard_of_goes_without_the_store(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        FaultyStore(open_store(store)) as asked,
        Agent("prefill-0", store=asked, backends=("loopback",)) as agent,
    ):
        kv = agent.register(np.zeros(64, np.uint8), name="kv")
        agent.publish()
        agent.publish(label="kv", segments=kv)
        scratch = agent.register(np.zeros(64, np.uint8))
        with monkeypatch.context() as patch:
            patch.setattr(asked, "transact", None)
            patch.setattr(asked, "get", None)
            agent.deregister(scratch)
            with pytest.raises(TypeError):
                agent.deregister(kv)
        agent.deregister(kv)
        assert agent._membership is not None
        assert agent._membership.publisher.labels == ("metadata",)


OFFERED = DEFAULT_NAMESPACE + "/prefill-0/"


def check_takes(under_way: Future[None], seconds: float, clock: FakeClock) -> None:
    """Let time pass: a call ends when so many seconds have, and not before."""
    clock.advance(seconds - 1)
    with pytest.raises(TimeoutError):
        under_way.result(timeout=0.1)
    clock.advance(1)
    under_way.result(timeout=10)


def offered(store: str) -> set[str]:
    """Return the labels that lie in the store."""
    with open_store(store) as other:
        keys = {entry.key.removeprefix(OFFERED) for entry in other.list(OFFERED, timeout=1).entries}
    return keys - {""}


@pytest.mark.parametrize("label", ["metadata", "kv"])
def test_memory_goes_only_when_a_withdrawal_that_failed_has_been_made_up_for(store: str, label: str) -> None:
    clock = FakeClock()  # nobody advances it: nothing is made up for in the background
    with (
        FaultyStore(open_store(store)) as asked,
        Agent("prefill-0", store=asked, backends=("loopback",), clock=clock) as agent,
    ):
        kv = agent.register(np.zeros(64, np.uint8), name="kv")
        agent.publish(label=label, segments=kv if label == "kv" else None)
        asked.faults.append(Fault.LOST_REQUEST)
        with pytest.raises(StoreUnavailableError):
            agent.withdraw() if label == "metadata" else agent.deregister(kv, drain=0)
        assert offered(store) == {label}
        asked.faults.append(Fault.LOST_REQUEST)
        with pytest.raises(StoreUnavailableError):
            agent.deregister(kv, drain=0)
        agent.deregister(kv, drain=0)
        assert offered(store) == set()
        agent.close(drain=0)


@pytest.mark.parametrize("by", ["a mend", "withdraw"])
def test_peers_are_given_time_whoever_withdrew_the_memory(store: str, by: str) -> None:
    clock = FakeClock()
    with (
        FaultyStore(open_store(store)) as asked,
        Agent("prefill-0", store=asked, backends=("loopback",), clock=clock) as agent,
        ThreadPoolExecutor(1) as thread,
    ):
        try:
            kv = agent.register(np.zeros(64, np.uint8), name="kv")
            agent.publish()
            clock.advance(60)
            if by == "withdraw":
                agent.withdraw()
            else:
                asked.faults.append(Fault.LOST_REQUEST)
                with pytest.raises(StoreUnavailableError):
                    agent.deregister(kv, drain=20)
                before = len(asked.transactions)
                clock.advance(5)
                assert agent._membership is not None
                eventually(lambda: agent._membership is not None and not agent._membership.publisher.is_in_doubt)
                assert len(asked.transactions) > before
            under_way = thread.submit(agent.deregister, kv, drain=20)
            check_takes(under_way, 20, clock)
        finally:
            clock.advance(1000)  # whoever waits still
            agent.close(drain=0)


@pytest.mark.parametrize("drain", [-1.0, float("inf"), float("nan")])
def test_no_time_at_all_is_refused(agent: Agent, drain: float) -> None:
    kv = agent.register(np.zeros(64, np.uint8), name="kv")
    with pytest.raises(ConfigurationError, match="drain="):
        agent.deregister(kv, drain=drain)
    with pytest.raises(ConfigurationError, match="drain="):
        agent.close(drain=drain)
    agent.deregister(kv)


def test_peers_are_given_time_also_by_an_agent_that_closes_after_it_withdrew(store: str) -> None:
    clock = FakeClock()
    agent = Agent("prefill-0", store=store, backends=("loopback",), clock=clock)
    agent.publish()
    agent.withdraw()
    with ThreadPoolExecutor(1) as thread:
        under_way = thread.submit(agent.close, drain=20)
        try:
            check_takes(under_way, 20, clock)
        finally:
            clock.advance(1)


@pytest.mark.parametrize(
    ("call", "before", "after"),
    [("publish", None, {"metadata"}), ("withdraw", "metadata", set()), ("withdraw", "kv", set())],
)
def test_memory_stays_while_another_thread_publishes_or_withdraws(
    store: str, agent: Agent, monkeypatch: pytest.MonkeyPatch, call: str, before: str | None, after: set[str]
) -> None:
    is_under_way, may_go_on = threading.Event(), threading.Event()
    inner = getattr(Publisher, call)

    def wait_and_call(*arguments: Any, **named: Any) -> int:
        if not may_go_on.is_set():
            is_under_way.set()
            assert may_go_on.wait(10)
        revision: int = inner(*arguments, **named)
        return revision

    kv = agent.register(np.zeros(64, np.uint8), name="kv")
    if before is not None:
        agent.publish(label=before, segments=kv if before == "kv" else None)
    monkeypatch.setattr(Publisher, call, wait_and_call)
    with ThreadPoolExecutor(2) as threads:
        other = threads.submit(getattr(agent, call))
        assert is_under_way.wait(10)
        under_way = threads.submit(agent.deregister, kv, drain=0)
        try:
            with pytest.raises(TimeoutError):
                under_way.result(timeout=0.1)
        finally:
            may_go_on.set()
        other.result(timeout=10)
        under_way.result(timeout=10)
    assert offered(store) == after
    with open_store(store) as asked:
        assert asked.get(MetadataKey(DEFAULT_NAMESPACE, "prefill-0").catalog, timeout=1)[0] is None


def test_names_go_with_the_memory_also_when_a_part_without_memory_is_left(store: str, agent: Agent) -> None:
    kv = agent.register(np.zeros(64, np.uint8), name="kv")
    agent.publish(label="connection", connection_info=True)
    agent.publish(label="kv", segments=kv)
    agent.deregister(kv)
    assert offered(store) == {"connection"}
    with open_store(store) as asked:
        assert asked.get(MetadataKey(DEFAULT_NAMESPACE, "prefill-0").catalog, timeout=1)[0] is None
