"""Metadata through PyTorch's TCPStore, and a stand-in for it: our agents and NVIDIA's."""

from __future__ import annotations

import hashlib
import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.integration.nixl.nixl_process import MEMORY, noise
from tests.standin.tcp_store import tcp_store_server

from trunkline.errors import AgentNotFoundError, StoreUnavailableError, TrunklineError
from trunkline.nixl._api import nixl_agent, nixl_agent_config
from trunkline.nixl._bindings import (
    DRAM_SEG,
    nixlBackendError,
    nixlInvalidParamError,
    nixlMismatchError,
    nixlNotAllowedError,
    nixlNotFoundError,
    nixlRegDList,
)
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.nixl.conftest import Nixl

PAIRS = list(itertools.permutations(("trunkline.nixl", "nixl_cu12")))
PART = 4096
PROMPT = 20.0


class Store(NamedTuple):
    """Where a store is, and a look into it."""

    endpoint: str
    has: Callable[[str], bool]
    put: Callable[[str, bytes], None]


@pytest.fixture(scope="module", params=["standin", "torch"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "standin":
        with tcp_store_server() as server:
            yield Store(f"127.0.0.1:{server.port}", server.values.__contains__, server.put)
        return
    distributed: Any = pytest.importorskip("torch.distributed", reason="torch is not installed: it is large")
    real = distributed.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=PROMPT)
    )

    def name(key: str) -> str:
        return key.removeprefix("/")  # torch puts it before every key

    yield Store(
        f"127.0.0.1:{real.port}",
        lambda key: bool(real.check([name(key)])),
        lambda key, value: real.set(name(key), value),
    )


def key_of(name: str, label: str = "metadata") -> str:
    return f"/nixl/agents/{label}/{name}/NULL_AGENT"


# -- processes: ours and the wheel's ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def members(store: Store, start_nixl: Callable[..., Nixl]) -> Iterator[Callable[[str], Nixl]]:
    """Start a process of a kind."""
    numbers = itertools.count()
    started = []

    def start(kind: str) -> Nixl:
        name = f"{kind}-{next(numbers)}"
        member = start_nixl(name, kind=kind, NIXL_TCPSTORE_ENDPOINT=store.endpoint, **{MEMORY: str(PART)})
        started.append(member)
        return member

    yield start
    for member in started:
        member.kill()


@pytest.mark.parametrize(("publisher", "reader"), PAIRS)
def test_published_fetched_read_and_withdrawn(
    store: Store, members: Callable[[str], Nixl], publisher: str, reader: str
) -> None:
    far, near = members(publisher), members(reader)
    far.ask("publish")
    assert near.ask("fetch", far.name)
    far.ask("fill", 1)
    mine, theirs = ([[member.ask("address"), PART, 0]] for member in (near, far))
    assert near.ask("transfer", "READ", mine, theirs, far.name, b"done".hex()) == "DONE"
    assert near.ask("digest") == hashlib.sha256(noise(1, PART).data).hexdigest()
    assert far.ask("notification") == [near.name, b"done".hex()]
    far.ask("withdraw")
    eventually(lambda: not store.has(key_of(far.name)), timeout=PROMPT)
    assert near.ask("knows", far.name)  # the store tells nobody


@pytest.mark.parametrize(("publisher", "reader"), PAIRS)
def test_parts_are_published_under_labels(
    store: Store, members: Callable[[str], Nixl], publisher: str, reader: str
) -> None:
    far, near = members(publisher), members(reader)
    regions = [far.ask("address"), far.ask("extend")]
    far.ask("publish_part", "conn", None)
    far.ask("publish_part", "one", regions[0])
    assert near.ask("fetch", far.name, "conn")
    assert near.ask("fetch", far.name, "one")
    assert near.ask("gets_to_offer", far.name, [[regions[0], PART, 0]])
    assert not near.ask("offers", far.name, [[regions[1], PART, 0]])
    assert store.has(key_of(far.name, "conn"))
    far.ask("withdraw")
    eventually(lambda: not any(store.has(key_of(far.name, label)) for label in ("conn", "one")), timeout=PROMPT)


# -- what ours says --------------------------------------------------------------------------------------------


@pytest.fixture
def start(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], nixl_agent]]:
    monkeypatch.setenv("NIXL_TCPSTORE_ENDPOINT", store.endpoint)
    monkeypatch.setenv("UCX_NET_DEVICES", "lo")
    monkeypatch.delenv("NIXL_ETCD_ENDPOINTS", raising=False)
    agents: list[nixl_agent] = []

    def start(name: str) -> nixl_agent:
        agents.append(nixl_agent(name, nixl_agent_config(backends=["UCX"])))
        return agents[-1]

    yield start
    for agent in agents:
        agent.close()


def told(agent: nixl_agent, name: str) -> TrunklineError:
    """Poll until a failure is told, and return it."""
    failures: list[TrunklineError] = []

    def is_told() -> bool:
        try:
            agent.check_remote_metadata(name)
        except TrunklineError as error:
            failures.append(error)
        return bool(failures)

    eventually(is_told, timeout=PROMPT)
    return failures[0]


def test_a_fetch_waits_for_who_comes_later(start: Callable[[str], nixl_agent]) -> None:
    a, b = start("early"), start("late")
    a.fetch_remote_metadata("late")
    assert not a.check_remote_metadata("late")
    b.send_local_metadata()
    eventually(lambda: a.check_remote_metadata("late"), timeout=PROMPT)


def test_who_does_not_come_is_not_found(start: Callable[[str], nixl_agent], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIXL_TCPSTORE_TIMEOUT_MS", "50")
    a = start("a")
    a.fetch_remote_metadata("nobody")
    failure = told(a, "nobody")
    assert isinstance(failure, nixlNotFoundError)
    assert isinstance(failure.__cause__, AgentNotFoundError)
    assert not a.check_remote_metadata("nobody")


@pytest.mark.parametrize(
    ("content", "error"), [(b"nonsense", nixlMismatchError), (None, nixlNotAllowedError)], ids=["nonsense", "another's"]
)
def test_what_is_not_that_agent_s_metadata_loads_nothing(
    store: Store, start: Callable[[str], nixl_agent], content: bytes | None, error: type[TrunklineError]
) -> None:
    a, b = start("a"), start("b")
    store.put(key_of("c"), content or b.get_agent_metadata())
    a.fetch_remote_metadata("c")
    assert isinstance(told(a, "c"), error)
    assert not a.check_remote_metadata("b")


def test_one_that_was_started_again_is_fetched_anew(start: Callable[[str], nixl_agent]) -> None:
    a, b = start("a"), start("again")
    b.send_local_metadata()
    a.fetch_remote_metadata("again")
    eventually(lambda: a.check_remote_metadata("again"), timeout=PROMPT)
    b.close()
    again = start("again")
    again.send_local_metadata()
    a.fetch_remote_metadata("again")
    arrived: dict[str, list[bytes]] = {}

    def has_arrived() -> bool:
        try:
            a.send_notif("again", b"hello")
        except TrunklineError:  # still the one that is gone
            return False
        arrived.update(again.get_new_notifs())
        return bool(arrived)

    eventually(has_arrived, timeout=PROMPT)
    assert set(arrived["a"]) == {b"hello"}


def test_a_store_that_does_not_answer(start: Callable[[str], nixl_agent], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIXL_TCPSTORE_TIMEOUT_MS", "50")
    with tcp_store_server() as gone:
        monkeypatch.setenv("NIXL_TCPSTORE_ENDPOINT", f"127.0.0.1:{gone.port}")
        a = start("a")  # connects to nothing
        a.send_local_metadata()
    calls: list[Callable[[], None]] = [a.send_local_metadata, a.invalidate_local_metadata]
    for call in calls:
        with pytest.raises(nixlBackendError, match=r"^NIXL_ERR_BACKEND: .*NIXL_TCPSTORE_ENDPOINT") as caught:
            call()
        assert isinstance(caught.value.__cause__, StoreUnavailableError)
    a.fetch_remote_metadata("b")
    assert isinstance(told(a, "b"), nixlBackendError)


def test_calls_that_can_t_be_meant(start: Callable[[str], nixl_agent], monkeypatch: pytest.MonkeyPatch) -> None:
    a = start("a")
    part = nixlRegDList(DRAM_SEG)
    for label in ("", "metadata", "x/y"):
        with pytest.raises(nixlInvalidParamError):
            a.send_partial_agent_metadata(part, True, ["UCX"], label=label)
    monkeypatch.setenv("NIXL_ETCD_ENDPOINTS", "http://127.0.0.1:1")
    with pytest.raises(nixlInvalidParamError, match="exclude each other"):
        start("b")


def test_closing_ends_a_fetch(start: Callable[[str], nixl_agent]) -> None:
    a = start("a")
    a.fetch_remote_metadata("nobody")
    a.close()
    with pytest.raises(nixlBackendError, match="closed"):
        a.send_local_metadata()
    with pytest.raises(nixlBackendError, match="closed"):
        a.invalidate_local_metadata()
