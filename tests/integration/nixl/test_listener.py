"""Metadata by socket: ours and ours, and ours and NIXL's wheel, both ways."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.integration.nixl.nixl_process import PORT

from trunkline.errors import MetadataMismatchError, PeerUnreachableError
from trunkline.exchange.address import Address
from trunkline.exchange.nixl_message import LOAD, NixlMessage
from trunkline.nixl import listener as nixl_listener
from trunkline.nixl import nixl_agent, nixl_agent_config
from trunkline.nixl._bindings import (
    DRAM_SEG,
    nixlBackendError,
    nixlInvalidParamError,
    nixlNotAllowedError,
    nixlRegDList,
)
from trunkline.nixl.listener import Listener
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.nixl.conftest import Nixl

    from trunkline.nixl.descriptor_list import nixlXferDList

SIZE = 4096


class Ours:
    """One of our agents that listens, with one region.

    Args:
        name: Its name.
        seed: What its memory is full of.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.agent = nixl_agent(name, nixl_agent_config(enable_listen_thread=True, listen_port=0))
        self.name = name
        self.memory = np.full(SIZE, seed, np.uint8)
        self.region = self.agent.register_memory([(self.memory.ctypes.data, SIZE, 0, "")], "DRAM")
        address = self.agent.agent.listen_address
        assert address is not None
        self.address = address

    @property
    def range(self) -> nixlXferDList:
        return self.region.trim()

    def knows(self, name: str, ranges: nixlXferDList | None = None) -> None:
        """Wait until a peer is loaded."""
        eventually(lambda: self.agent.check_remote_metadata(name, ranges), timeout=20)

    def forgets(self, name: str) -> None:
        eventually(lambda: not self.agent.check_remote_metadata(name), timeout=20)

    def read(self, name: str, rows: list[list[int]]) -> None:
        """Read a peer's memory into its own."""
        remote = self.agent.get_xfer_descs(np.array(rows, np.uint64), "DRAM")
        assert remote is not None
        handle = self.agent.initialize_xfer("READ", self.range, remote, name)
        self.agent.transfer(handle)
        eventually(lambda: self.agent.check_xfer_state(handle) == "DONE", timeout=20)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NIXL_ETCD_ENDPOINTS", "NIXL_ETCD_NAMESPACE", "TRUNKLINE_LISTEN_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UCX_NET_DEVICES", "lo")


@pytest.fixture
def start() -> Iterator[Callable[[str, int], Ours]]:
    started: list[Ours] = []

    def start(name: str, seed: int = 0) -> Ours:
        started.append(Ours(name, seed))
        return started[-1]

    yield start
    for each in started:
        each.agent.close()


@pytest.fixture(scope="module")
def nixl(start_nixl: Callable[..., Nixl]) -> tuple[Nixl, Address]:
    """A real agent that listens, and where."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return start_nixl(**{PORT: str(port)}), Address("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ours_send_fetch_and_take_back(start: Callable[..., Ours], host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_LISTEN_HOST", host)
    a, b = start("a"), start("b", 7)
    assert a.address.host == host
    a.agent.fetch_remote_metadata("b", *b.address)
    a.knows("b", b.range)
    a.read("b", [[b.memory.ctypes.data, SIZE, 0]])
    assert (a.memory == 7).all()
    a.agent.send_local_metadata(*b.address)
    b.knows("a", a.range)
    a.agent.invalidate_local_metadata(*b.address)
    b.forgets("a")
    a.knows("b")


def test_parts_add_up(start: Callable[..., Ours]) -> None:
    a, b = start("a"), start("b")
    empty = nixlRegDList(DRAM_SEG)
    a.agent.send_partial_agent_metadata(empty, True, (), *b.address)
    b.knows("a")
    assert not b.agent.check_remote_metadata("a", a.range)
    a.agent.send_partial_agent_metadata(a.region, False, ["UCX"], *b.address)
    b.knows("a", a.range)


def test_the_address_of_another_agent_loads_nothing(start: Callable[..., Ours]) -> None:
    a, b = start("a"), start("b")
    a.agent.fetch_remote_metadata("c", *b.address)

    failures: list[nixlNotAllowedError] = []

    def is_told() -> bool:
        try:
            a.agent.check_remote_metadata("c")
        except nixlNotAllowedError as error:
            failures.append(error)
        return bool(failures)

    eventually(is_told)
    assert "those of agent 'b', not of 'c'; nothing was loaded" in str(failures[0])
    assert not a.agent.check_remote_metadata("b")


def test_who_does_not_listen_is_told_of(start: Callable[..., Ours]) -> None:
    a = start("a")
    gone = Ours("gone", 0)
    gone.agent.close()
    with pytest.raises(nixlBackendError, match="can't be reached") as raised:
        a.agent.send_local_metadata(*gone.address)
    assert isinstance(raised.value.__cause__, PeerUnreachableError)
    with pytest.raises(nixlInvalidParamError, match="has no port 0"):
        a.agent.send_local_metadata("127.0.0.1", 0)


def test_who_is_gone_need_not_forget(start: Callable[..., Ours], caplog: pytest.LogCaptureFixture) -> None:
    """As in NIXL's own examples: the target may have ended when the initiator takes its metadata back."""
    a = start("a")
    gone = Ours("gone", 0)
    gone.agent.close()
    a.agent.invalidate_local_metadata(*gone.address)
    assert "was not told to forget it" in caplog.text
    with pytest.raises(nixlInvalidParamError, match="has no port 0"):
        a.agent.invalidate_local_metadata("127.0.0.1", 0)


def test_nothing_of_it_is_left(start: Callable[..., Ours]) -> None:
    start("a")  # UCX and its files are there from now on
    ended = Ours("ended", 0)
    ended.agent.close()
    before = {entry.name for entry in os.scandir("/proc/self/fd")}
    for is_closed in (True, False):
        b = Ours("b", 0)
        address = b.address
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(b"half a frame"[:5])
            if is_closed:
                b.agent.close()
            del b
            gc.collect()
            with contextlib.suppress(ConnectionResetError):  # what was not read is refused
                assert connection.recv(1) == b""
        assert not [thread for thread in threading.enumerate() if thread.name == "trunkline-listener-b"]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=20)
    assert {entry.name for entry in os.scandir("/proc/self/fd")} <= before


def test_an_address_that_is_taken(start: Callable[..., Ours]) -> None:
    taken = start("a").address
    with pytest.raises(nixlInvalidParamError, match="can't be listened on: Address already in use"):
        nixl_agent("b", nixl_agent_config(enable_listen_thread=True, listen_port=taken.port))


def test_one_that_listens_again_at_the_same_port_is_sent_to(start: Callable[..., Ours]) -> None:
    a, b = start("a"), start("b")
    a.agent.send_local_metadata(*b.address)
    b.knows("a")
    b.agent.close()
    again = nixl_agent("b", nixl_agent_config(enable_listen_thread=True, listen_port=b.address.port))
    a.agent.send_local_metadata(*b.address)
    eventually(lambda: again.check_remote_metadata("a"))
    again.close()


def test_bad_frames_and_its_own_name_harm_nobody(start: Callable[..., Ours], caplog: pytest.LogCaptureFixture) -> None:
    a, b = start("a"), start("b")
    b.agent.send_local_metadata(*a.address)
    a.knows("b", b.range)
    own = NixlMessage(LOAD, a.agent.get_agent_metadata()).encode()
    cut = NixlMessage(LOAD, b.agent.get_agent_metadata()[:-3]).encode()
    for payload in (own, cut, b"NIXLCOMM:EVIL", b"GET / HTTP/1.1\r\n\r\n", b"NIXLCOMM:INVL", b"NIXLCOMM:INVL\xff"):
        caplog.clear()
        with socket.create_connection(a.address, timeout=20) as connection:
            connection.sendall(len(payload).to_bytes(8, "little") + payload)
            assert connection.recv(1) == b""
        eventually(lambda: "is closed: " in caplog.text)
    a.knows("b", b.range)
    a.agent.invalidate_local_metadata(*b.address)


def test_how_many_may_send_themselves_is_bounded(start: Callable[..., Ours], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nixl_listener, "MAX_PEERS", 1)
    a, b, c = start("a"), start("b"), start("c")
    listener = a.agent.agent._listener
    assert isinstance(listener, Listener)
    first, second = (NixlMessage(LOAD, each.agent.get_agent_metadata()) for each in (b, c))
    listener.handle(first, "test")
    listener.handle(first, "test")
    with pytest.raises(MetadataMismatchError, match="takes no more"):
        listener.handle(second, "test")
    a.agent.remove_remote_agent("b")
    listener.handle(second, "test")


def test_the_wheel_fetches_and_we_do(start: Callable[..., Ours], nixl: tuple[Nixl, Address]) -> None:
    a, (wheel, address) = start("fetches", 3), nixl
    a.agent.fetch_remote_metadata(wheel.name, *address)
    a.knows(wheel.name)
    assert wheel.ask("fetch_from", "fetches", *a.address)
    wheel.ask("fill", 1)
    theirs = wheel.ask("address")
    a.knows(wheel.name, a.agent.get_xfer_descs(np.array([[theirs, SIZE, 0]], np.uint64), "DRAM"))
    a.read(wheel.name, [[theirs, SIZE, 0]])
    assert not (a.memory == 3).all()
    mine = [[a.memory.ctypes.data, SIZE, 0]]
    a.memory[:] = 9
    assert wheel.ask("transfer", "READ", [[theirs, SIZE, 0]], mine, "fetches", "") == "DONE"


def test_the_wheel_sends_and_takes_back_and_we_do(start: Callable[..., Ours], nixl: tuple[Nixl, Address]) -> None:
    a, (wheel, address) = start("sends"), nixl
    wheel.ask("send_part", *a.address)
    a.knows(wheel.name)
    theirs = a.agent.get_xfer_descs(np.array([[wheel.ask("address"), SIZE, 0]], np.uint64), "DRAM")
    assert not a.agent.check_remote_metadata(wheel.name, theirs)
    wheel.ask("send", *a.address)
    a.knows(wheel.name, theirs)
    a.agent.send_local_metadata(*address)
    assert wheel.ask("knows", "sends")
    wheel.ask("withdraw_from", *a.address)
    a.forgets(wheel.name)
    a.agent.invalidate_local_metadata(*address)
    assert wheel.ask("forgets", "sends")


def test_many_calls_use_one_connection(start: Callable[..., Ours], nixl: tuple[Nixl, Address]) -> None:
    """NIXL's listener keeps its side of a connection open when a peer hangs up."""
    a, (wheel, address) = start("often"), nixl
    a.agent.send_local_metadata(*address)
    assert wheel.ask("knows", "often")
    before = connections(address.port)
    for _ in range(3):
        a.agent.invalidate_local_metadata(*address)
        assert wheel.ask("forgets", "often")
        a.agent.send_local_metadata(*address)
        assert wheel.ask("knows", "often")
    assert connections(address.port) == before


def connections(port: int) -> int:
    """Return how many connections a listener on this machine has not closed."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(local.endswith(f":{port:04X}") and state != "0A" for _, local, _, state, *_ in rows)
