"""Where NIXL stays silent, blocks or keeps what is stale: fetching and publishing through our API."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import open_store
from trunkline.errors import AgentNotFoundError, TrunklineError
from trunkline.metadata.key import NIXL_NAMESPACE
from trunkline.nixl._api import nixl_agent
from trunkline.nixl._bindings import (
    DRAM_SEG,
    NIXL_ERR_NOT_FOUND,
    NIXL_READ,
    NIXL_SUCCESS,
    nixlAgent,
    nixlAgentConfig,
    nixlBackendError,
    nixlInvalidParamError,
    nixlMismatchError,
    nixlNotAllowedError,
    nixlNotFoundError,
    nixlRegDList,
    nixlRemoteDisconnectError,
    nixlXferDList,
)
from trunkline.store.contract import Put, Transaction
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOTHING = nixlXferDList(DRAM_SEG)
PROMPT = 20.0


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> str:
    """An in-memory store, as the environment names it."""
    url = f"memory://{uuid.uuid4().hex}"
    monkeypatch.setenv("NIXL_ETCD_ENDPOINTS", url)
    monkeypatch.delenv("NIXL_ETCD_NAMESPACE", raising=False)
    monkeypatch.setenv("UCX_NET_DEVICES", "lo")
    return url


class Agents:
    """Low-level agents with one region each, which end with the test."""

    def __init__(self) -> None:
        self._open: list[nixlAgent] = []
        self.memory: dict[nixlAgent, np.ndarray[tuple[int], np.dtype[np.uint8]]] = {}

    def open(self, name: str, waiting: float = 30.0) -> nixlAgent:
        config = nixlAgentConfig()
        config.etcdWatchTimeout = dt.timedelta(seconds=waiting)
        agent = nixlAgent(name, config)
        agent.createBackend("UCX", {})
        self._open.append(agent)
        self.memory[agent] = np.full(4096, len(self._open), np.uint8)
        agent.registerMem(self.region(agent))
        return agent

    def region(self, agent: nixlAgent) -> nixlRegDList:
        return nixlRegDList(DRAM_SEG, [(int(self.memory[agent].ctypes.data), 4096, 0, "")])

    def range(self, agent: nixlAgent) -> nixlXferDList:
        return self.region(agent).trim()

    def close(self) -> None:
        for agent in self._open:
            agent.close()


@pytest.fixture
def agents() -> Iterator[Agents]:
    agents = Agents()
    yield agents
    agents.close()


def test_a_fetch_returns_at_once_and_waits_for_who_comes_later(agents: Agents) -> None:
    a, b = agents.open("a"), agents.open("b")
    a.fetchRemoteMD("b")
    assert a.checkRemoteMD("b", NOTHING) == NIXL_ERR_NOT_FOUND
    b.sendLocalMD()
    eventually(lambda: a.checkRemoteMD("b", agents.range(b)) == NIXL_SUCCESS, timeout=PROMPT)


def test_one_that_is_not_there_delays_no_other(agents: Agents) -> None:
    a, b = agents.open("a"), agents.open("b")
    b.sendLocalMD()
    for number in range(8):
        a.fetchRemoteMD(f"nobody-{number}")
    a.fetchRemoteMD("b")
    eventually(lambda: a.checkRemoteMD("b", NOTHING) == NIXL_SUCCESS, timeout=PROMPT)


def told(agent: nixlAgent, name: str) -> TrunklineError:
    """Poll until the failure is told, and return it."""
    failures: list[TrunklineError] = []

    def is_told() -> bool:
        try:
            agent.checkRemoteMD(name, NOTHING)
        except TrunklineError as error:
            failures.append(error)
        return bool(failures)

    eventually(is_told, timeout=PROMPT)
    return failures[0]


def test_how_a_fetch_failed_is_told_once(agents: Agents) -> None:
    a = agents.open("a", waiting=0.05)
    a.fetchRemoteMD("nobody")
    failure = told(a, "nobody")
    assert isinstance(failure, nixlNotFoundError)
    assert isinstance(failure.__cause__, AgentNotFoundError)
    assert str(failure).startswith("NIXL_ERR_NOT_FOUND: agent 'nobody' (label 'metadata') was not found within")
    assert a.checkRemoteMD("nobody", NOTHING) == NIXL_ERR_NOT_FOUND
    a.fetchRemoteMD("nobody")
    assert isinstance(told(a, "nobody"), nixlNotFoundError)


def test_bytes_that_are_no_metadata_are_a_mismatch(agents: Agents, store: str) -> None:
    a = agents.open("a")
    with open_store(store) as opened:
        key = f"{NIXL_NAMESPACE}/odd/metadata"
        opened.transact(Transaction((), (Put(key, b"nixlSerDes|nonsense"),)), timeout=5)
    a.fetchRemoteMD("odd")
    assert isinstance(told(a, "odd"), nixlMismatchError)


def test_without_a_namespace_keys_hold_nixl_s_double_slash(agents: Agents, store: str) -> None:
    agents.open("a").sendLocalMD()
    with open_store(store) as opened:
        keys = [entry.key for entry in opened.list("/", timeout=5).entries]
    assert {"/nixl/agents//a/", "/nixl/agents//a/metadata"} <= set(keys)


def test_one_that_was_started_again_is_fetched_anew(agents: Agents) -> None:
    a, b = agents.open("a"), agents.open("b")
    b.sendLocalMD()
    a.fetchRemoteMD("b")
    eventually(lambda: a.checkRemoteMD("b", NOTHING) == NIXL_SUCCESS, timeout=PROMPT)
    b.close()
    eventually(lambda: a.checkRemoteMD("b", NOTHING) == NIXL_ERR_NOT_FOUND, timeout=PROMPT)
    again = agents.open("b")
    again.sendLocalMD()
    a.fetchRemoteMD("b")
    eventually(lambda: a.checkRemoteMD("b", agents.range(again)) == NIXL_SUCCESS, timeout=PROMPT)
    assert a.genNotif("b", b"hello") == NIXL_SUCCESS
    arrived: dict[str, list[bytes]] = {}

    def is_there() -> bool:
        arrived.update(again.getNotifs(arrived))
        return bool(arrived)

    eventually(is_there, timeout=PROMPT)
    assert arrived == {"a": [b"hello"]}


def test_labels_are_fetched_in_the_order_asked_for(agents: Agents) -> None:
    a, b = agents.open("a"), agents.open("b")
    a.fetchRemoteMD("b", label="conn")
    a.fetchRemoteMD("b", label="part")
    b.sendLocalPartialMD(agents.region(b), False, label="part")
    b.sendLocalPartialMD(nixlRegDList(DRAM_SEG), True, label="conn")
    eventually(lambda: a.checkRemoteMD("b", agents.range(b)) == NIXL_SUCCESS, timeout=PROMPT)


def test_published_memory_that_is_deregistered_is_withdrawn_first(agents: Agents) -> None:
    a, b = agents.open("a"), agents.open("b")
    b.sendLocalMD()
    a.fetchRemoteMD("b")
    eventually(lambda: a.checkRemoteMD("b", agents.range(b)) == NIXL_SUCCESS, timeout=PROMPT)
    b.deregisterMem(agents.region(b))
    eventually(lambda: a.checkRemoteMD("b", agents.range(b)) == NIXL_ERR_NOT_FOUND, timeout=PROMPT)
    assert a.checkRemoteMD("b", NOTHING) == NIXL_SUCCESS


def test_a_name_that_is_taken_is_not_allowed(agents: Agents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_SESSION_TTL", "2")  # for so long the second waits for the first to go
    agents.open("a")
    second = nixlAgent("a", nixlAgentConfig())
    with pytest.raises(nixlNotAllowedError, match="NIXL_ERR_NOT_ALLOWED: "):
        second.createBackend("UCX", {})


def test_without_a_store_every_call_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIXL_ETCD_ENDPOINTS")
    agent = nixl_agent("alone")
    calls: list[Callable[[], object]] = [
        agent.send_local_metadata,
        lambda: agent.fetch_remote_metadata("b"),
        agent.invalidate_local_metadata,
    ]
    for call in calls:
        with pytest.raises(nixlInvalidParamError, match="NIXL_ETCD_ENDPOINTS"):
            call()
    agent.close()
    with pytest.raises(nixlBackendError, match="is closed"):
        agent.get_new_notifs()


def test_an_agent_ends_with_its_last_reference(agents: Agents) -> None:
    a, b = agents.open("a"), nixl_agent("b")
    b.send_local_metadata()
    a.fetchRemoteMD("b")
    eventually(lambda: a.checkRemoteMD("b", NOTHING) == NIXL_SUCCESS, timeout=PROMPT)
    del b
    eventually(lambda: a.checkRemoteMD("b", NOTHING) == NIXL_ERR_NOT_FOUND, timeout=PROMPT)


DIES = """
import sys, time
import numpy as np
from trunkline.nixl import nixl_agent
agent = nixl_agent("b")
memory = np.zeros(64, np.uint8)
agent.register_memory([(memory.ctypes.data, 64, 0, "")], "DRAM")
agent.send_local_metadata()
print(memory.ctypes.data, flush=True)
sys.stdin.read()
"""


def test_one_that_was_killed_and_started_again(
    agents: Agents, etcd_endpoint: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With NIXL the stale metadata stay, and a new fetch is refused in a log line."""
    monkeypatch.setenv("NIXL_ETCD_ENDPOINTS", etcd_endpoint)
    monkeypatch.setenv("NIXL_ETCD_NAMESPACE", namespace)
    a = agents.open("a")
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", DIES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdin is not None
        address = int(child.stdout.readline())
        theirs = nixlXferDList(DRAM_SEG, [(address, 64, 0)])
        a.fetchRemoteMD("b")
        eventually(lambda theirs=theirs: a.checkRemoteMD("b", theirs) == NIXL_SUCCESS, timeout=PROMPT)  # type: ignore[misc]
        mine = nixlXferDList(DRAM_SEG, [(int(agents.memory[a].ctypes.data), 64, 0)])
        request = a.createXferReq(NIXL_READ, mine, theirs, "b")
        a.postXferReq(request)
        eventually(lambda request=request: a.getXferStatus(request) == NIXL_SUCCESS, timeout=PROMPT)  # type: ignore[misc]
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    started = time.monotonic()
    assert isinstance(lost(a, mine, theirs), nixlRemoteDisconnectError)
    assert time.monotonic() - started < PROMPT


def lost(agent: nixlAgent, mine: nixlXferDList, theirs: nixlXferDList) -> TrunklineError:
    """Read from a peer that is dead, and return how that failed."""
    try:
        request = agent.createXferReq(NIXL_READ, mine, theirs, "b")
        agent.postXferReq(request)
        while agent.getXferStatus(request) != NIXL_SUCCESS:
            pass
    except TrunklineError as error:
        return error
    raise AssertionError("it went through")
