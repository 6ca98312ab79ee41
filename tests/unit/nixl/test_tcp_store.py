"""The client of PyTorch's TCPStore, against a server that speaks its protocol, and against others."""

from __future__ import annotations

import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.standin.tcp_store import CHECK, DELETE, GET, PING, TcpStoreServer, tcp_store_server

from trunkline.errors import (
    AgentNotFoundError,
    ClosedError,
    ConfigurationError,
    MetadataDecodeError,
    StoreUnavailableError,
    TrunklineError,
)
from trunkline.exchange.address import Address
from trunkline.metadata.codec import MAX_BYTES
from trunkline.nixl.tcp_store import MAX_VALUE, TcpStore
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT = 10.0
METADATA = bytes(range(256)) * 300
KEY = "/nixl/agents/metadata/a/NULL_AGENT"


@pytest.fixture
def server() -> Iterator[TcpStoreServer]:
    with tcp_store_server() as server:
        yield server


@pytest.fixture
def store(server: TcpStoreServer) -> Iterator[TcpStore]:
    """A client, none of whose connections may be left."""
    store = client(server)
    yield store
    store.close()
    eventually(lambda: server.connected == 0, timeout=PROMPT)


def client(server: TcpStoreServer, *, waiting: float = PROMPT, timeout: float = PROMPT) -> TcpStore:
    return TcpStore(Address("127.0.0.1", server.port), waiting=waiting, timeout=timeout)


def test_what_is_published_lies_under_nixl_s_key_and_is_fetched(store: TcpStore, server: TcpStoreServer) -> None:
    store.publish("a", "metadata", b"old")
    store.publish("a", "metadata", METADATA)
    store.publish("a", "part", b"part")
    assert server.values == {KEY: METADATA, "/nixl/agents/part/a/NULL_AGENT": b"part"}
    assert store.fetch("a", "metadata") == METADATA
    assert store.fetch("a", "part") == b"part"


def test_a_fetch_waits_for_who_publishes_later(store: TcpStore, server: TcpStoreServer) -> None:
    fetched: list[bytes] = []
    thread = threading.Thread(target=lambda: fetched.append(store.fetch("a", "metadata")))
    thread.start()
    eventually(lambda: server.waiting == 1, timeout=PROMPT)
    store.publish("a", "metadata", METADATA)
    thread.join(PROMPT)
    assert fetched == [METADATA]


def test_who_does_not_publish_is_not_found(server: TcpStoreServer) -> None:
    with pytest.raises(
        AgentNotFoundError, match=r"'a' \(label 'part'\) was not found within 0\.\d s in the TCPStore at"
    ):
        client(server, waiting=0.05).fetch("a", "part")


def test_what_was_withdrawn_since_it_came_is_not_found(store: TcpStore, server: TcpStoreServer) -> None:
    server.values[KEY] = METADATA
    server.faults[GET] = lambda: bytes(8)
    with pytest.raises(AgentNotFoundError):
        store.fetch("a", "metadata")


def test_all_that_was_published_is_withdrawn_and_nothing_else(store: TcpStore, server: TcpStoreServer) -> None:
    server.values["/nixl/agents/metadata/b/NULL_AGENT"] = server.values["/nixl/agents/old/a/NULL_AGENT"] = b""
    others = dict(server.values)
    for label in ("metadata", "part"):
        store.publish("a", label, b"x")
    store.withdraw()
    assert server.values == others
    server.values[KEY] = b"of another run"
    store.withdraw()
    assert KEY in server.values


def test_a_withdrawal_that_failed_is_made_up_for(store: TcpStore, server: TcpStoreServer) -> None:
    store.publish("a", "metadata", b"x")
    server.faults[DELETE] = lambda: b""
    with pytest.raises(StoreUnavailableError, match=r"withdrawing .*hung up"):
        store.withdraw()
    server.faults.clear()
    store.withdraw()
    assert server.values == {}


def test_what_may_have_been_published_is_withdrawn(store: TcpStore, server: TcpStoreServer) -> None:
    server.faults[CHECK] = lambda: b""
    with pytest.raises(StoreUnavailableError):
        store.publish("a", "metadata", b"x")
    assert server.values == {KEY: b"x"}
    store.withdraw()
    assert server.values == {}


def test_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address(*taken.getsockname())
    with pytest.raises(StoreUnavailableError, match=rf"{address} failed after .*NIXL_TCPSTORE_ENDPOINT"):
        TcpStore(address).publish("a", "metadata", b"x")


def test_where_something_else_listens(store: TcpStore, server: TcpStoreServer) -> None:
    server.faults[PING] = lambda: b"HTTP/1.1 400"
    with pytest.raises(StoreUnavailableError, match="what listens there is no TCPStore"):
        store.publish("a", "metadata", b"x")


def test_where_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = TcpStore(Address(*silent.getsockname()), waiting=0.05, timeout=0.05)
        for call in (lambda: store.fetch("a", "metadata"), lambda: store.publish("a", "metadata", b"x")):
            with pytest.raises(StoreUnavailableError, match="timed out"):
                call()


def test_a_fetch_waits_for_the_store_itself(server: TcpStoreServer) -> None:
    server.values[KEY] = METADATA
    attempts: list[bytes] = []

    def fault() -> bytes:
        attempts.append(b"")
        if len(attempts) == 2:
            server.faults.clear()
        return b""

    server.faults[PING] = fault
    assert client(server).fetch("a", "metadata") == METADATA
    assert len(attempts) == 2


def test_an_answer_that_is_cut(server: TcpStoreServer) -> None:
    server.values[KEY] = METADATA
    server.faults[GET] = lambda: struct.pack("<Q", 1000) + bytes(999)
    with pytest.raises(StoreUnavailableError, match="hung up"):
        client(server, waiting=0.05).fetch("a", "metadata")


def test_a_value_that_is_too_long_is_not_read(store: TcpStore, server: TcpStoreServer) -> None:
    server.values[KEY] = METADATA
    server.faults[GET] = lambda: struct.pack("<Q", MAX_BYTES + 1)
    with pytest.raises(MetadataDecodeError, match=str(MAX_BYTES + 1)):
        store.fetch("a", "metadata")


def test_what_the_store_does_not_take_is_told_with_its_limit(store: TcpStore) -> None:
    with pytest.raises(StoreUnavailableError, match=f"publishing {MAX_VALUE + 1} bytes.*takes {MAX_VALUE}"):
        store.publish("a", "metadata", bytes(MAX_VALUE + 1))


def test_closing_wakes_who_waits(server: TcpStoreServer) -> None:
    store = client(server)
    failures: list[TrunklineError] = []

    def fetch() -> None:
        try:
            store.fetch("a", "metadata")
        except TrunklineError as error:
            failures.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    eventually(lambda: server.waiting == 1, timeout=PROMPT)
    began = time.monotonic()
    store.close()
    thread.join(PROMPT)
    assert time.monotonic() - began < PROMPT / 2
    assert [type(failure) for failure in failures] == [ClosedError]
    with pytest.raises(ClosedError):
        store.publish("a", "metadata", b"x")
    assert server.values == {}


@pytest.mark.parametrize(("name", "label"), [("a/b", "metadata"), ("a", "x/y"), ("", "metadata"), ("a", ".hidden")])
def test_what_no_key_can_hold_is_refused(store: TcpStore, name: str, label: str) -> None:
    for call in (store.fetch, lambda name, label: store.publish(name, label, b"x")):
        with pytest.raises(ConfigurationError):
            call(name, label)


def test_the_environment_names_the_store() -> None:
    assert TcpStore.from_environment({}) is None
    assert TcpStore.from_environment({"NIXL_TCPSTORE_ENDPOINT": ""}) is None
    store = TcpStore.from_environment({"NIXL_TCPSTORE_ENDPOINT": "[::1]:29500", "NIXL_ETCD_ENDPOINTS": ""})
    assert store is not None
    assert (store.address, store._waiting, store._timeout) == (("::1", 29500), 30.0, 5.0)
    store = TcpStore.from_environment(
        {
            "NIXL_TCPSTORE_ENDPOINT": "host:1",
            "NIXL_TCPSTORE_TIMEOUT_MS": "1500",
            "NIXL_TCPSTORE_OP_TIMEOUT_MS": "250",
        }
    )
    assert store is not None
    assert (store.address, store._waiting, store._timeout) == (("host", 1), 1.5, 0.25)


@pytest.mark.parametrize(
    "variables",
    [
        *({"NIXL_TCPSTORE_ENDPOINT": text} for text in ("host", ":1", "host:", "host:0", "host:65536", "host:1x")),
        {"NIXL_TCPSTORE_ENDPOINT": "host:1", "NIXL_TCPSTORE_TIMEOUT_MS": "0"},
        {"NIXL_TCPSTORE_ENDPOINT": "host:1", "NIXL_TCPSTORE_OP_TIMEOUT_MS": "soon"},
        {"NIXL_TCPSTORE_ENDPOINT": "host:1", "NIXL_ETCD_ENDPOINTS": "http://host:2379"},
    ],
)
def test_an_environment_that_makes_no_sense(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="NIXL_TCPSTORE_"):
        TcpStore.from_environment(variables)
