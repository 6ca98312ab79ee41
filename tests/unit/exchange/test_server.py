"""A server of frames, and clients that are slow, many or mad."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.clock import Deadline
from trunkline.errors import ClosedError, ConfigurationError, MetadataDecodeError, PeerUnreachableError
from trunkline.exchange import server as server_module
from trunkline.exchange.address import Address
from trunkline.exchange.client import FrameClient, FrameClients
from trunkline.exchange.frame import pack_frame
from trunkline.exchange.server import FRAME_TIMEOUT, FrameServer
from trunkline.testing.clock import FakeClock
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX = 1 << 22
HERE = Address("127.0.0.1", 0)
FRAMES = st.sampled_from([b"x", b"refuse", b"break", b"quiet", b"large"]).map(pack_frame)


class Echo:
    """Answers each frame with itself, except for some that say what to do."""

    is_kept = False

    def __init__(self, ended: list[str], peer: str) -> None:
        self._ended = ended
        self._peer = peer

    def receive(self, payload: bytes) -> bytes | None:
        if payload == b"refuse":
            raise MetadataDecodeError("no such frame")
        if payload == b"break":
            raise RuntimeError("a bug")
        if payload == b"keep":
            self.is_kept = True
        if payload == b"large":
            return bytes(MAX)
        return None if payload == b"quiet" else payload

    def end(self) -> None:
        self._ended.append(self._peer)


def descriptors() -> set[str]:
    return {entry.name for entry in os.scandir("/proc/self/fd")}


class Bench:
    """Servers that end with the test; ``ended`` are the connections that were closed."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ended: list[str] = []
        self.servers: list[FrameServer] = []

    def serve(
        self, *, address: Address = HERE, idle_timeout: float | None = None, max_connections: int = 8
    ) -> FrameServer:
        server = FrameServer(
            address,
            lambda peer: Echo(self.ended, peer),
            max_bytes=MAX,
            idle_timeout=idle_timeout,
            max_connections=max_connections,
            clock=self.clock,
        )
        self.servers.append(server)
        return server

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for server in self.servers:
            server.wake()


@pytest.fixture
def bench() -> Iterator[Bench]:
    before = descriptors()
    bench = Bench()
    yield bench
    for server in bench.servers:
        server.close()
        assert not server._thread.is_alive()
    assert descriptors() <= before
    assert "trunkline-listener" not in {thread.name for thread in threading.enumerate()}


def connect(server: FrameServer) -> socket.socket:
    return socket.create_connection(server.address, timeout=20)


def ask(connection: socket.socket, payload: bytes) -> bytes:
    """Return the answer to a frame; empty if the server hung up."""
    try:
        connection.sendall(pack_frame(payload))
        return receive(connection, 8 + len(payload))[8:]
    except ConnectionError:
        return b""


def receive(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes, fewer only if the server hangs up."""
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "::"])
def test_frames_are_answered_in_order(bench: Bench, host: str) -> None:
    server = bench.serve(address=Address(host, 0))
    assert str(server.address) == (f"[{host}]:" if ":" in host else f"{host}:") + str(server.address.port)
    with connect(server) as connection:
        connection.sendall(b"".join(map(pack_frame, [b"one", b"quiet", b"two"])))
        answers = pack_frame(b"one") + pack_frame(b"two")
        assert receive(connection, len(answers)) == answers
    if host == "::":
        with socket.create_connection(("127.0.0.1", server.address.port), timeout=20) as connection:
            assert ask(connection, b"v4") == b"v4"


@pytest.mark.parametrize("evil", [bytes(8), b"\xff" * 8, pack_frame(b"refuse"), pack_frame(b"break")])
def test_a_frame_that_is_bad_ends_its_connection_alone(
    bench: Bench, evil: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = bench.serve()
    with connect(server) as good, connect(server) as bad:
        assert ask(good, b"x") == b"x"
        bad.sendall(evil)
        assert bad.recv(1) == b""
        assert ask(good, b"y") == b"y"
    assert "is closed" in caplog.text


def test_who_is_slow_holds_up_nobody_and_is_hung_up_on(bench: Bench) -> None:
    server = bench.serve()
    with connect(server) as slow, connect(server) as deaf, connect(server) as good:
        slow.sendall(pack_frame(b"never ends")[:-1])
        deaf.sendall(pack_frame(b"large") * 8)
        assert ask(good, b"x") == b"x"
        eventually(lambda: sum(connection.held > 0 for connection in server._connections) == 2)
        bench.pass_time(FRAME_TIMEOUT - 1)
        assert ask(good, b"y") == b"y"
        assert not bench.ended
        bench.pass_time(2)
        eventually(lambda: len(bench.ended) == 2)
        assert slow.recv(1) == b""
        assert ask(good, b"z") == b"z"


def test_an_idle_connection_is_kept_or_not(bench: Bench) -> None:
    patient, strict = bench.serve(), bench.serve(idle_timeout=5)
    with connect(patient) as stays, connect(strict) as kept, connect(strict) as goes:
        assert ask(stays, b"x") == b"x"
        assert ask(kept, b"keep") == b"keep"
        assert ask(goes, b"x") == b"x"
        eventually(lambda: bench.pass_time(3600) or len(bench.ended) == 1)  # type: ignore[func-returns-value]
        assert goes.recv(1) == b""
        assert ask(stays, b"x") == b"x"
        assert ask(kept, b"x") == b"x"


def test_too_many_take_the_place_of_the_longest_idle(bench: Bench) -> None:
    server = bench.serve(max_connections=2)
    with connect(server) as kept, connect(server) as idle:
        assert ask(kept, b"keep") == b"keep"
        assert ask(idle, b"x") == b"x"
        with connect(server) as newcomer:
            assert ask(newcomer, b"keep") == b"keep"
            assert idle.recv(1) == b""
            with connect(server) as refused:
                assert ask(refused, b"x") == b""
            assert ask(kept, b"x") == b"x"


def test_all_together_may_hold_so_much(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_HELD", 1 << 20)
    server = bench.serve()
    with connect(server) as greedy, connect(server) as good:
        with pytest.raises(ConnectionError):  # noqa: PT012 - it may take several
            while True:
                greedy.sendall(pack_frame(bytes(MAX))[:-1])
        assert ask(good, b"x") == b"x"
        assert len(bench.ended) == 1


def test_without_descriptors_it_pauses_and_goes_on(bench: Bench) -> None:
    server = bench.serve()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as connection:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            connection.connect(server.address)
            eventually(lambda: server._paused_until is not None)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        connection.settimeout(20)
        bench.pass_time(2)
        assert ask(connection, b"x") == b"x"


@given(streams=st.lists(st.lists(st.binary(max_size=40) | FRAMES, max_size=6), max_size=4))
@settings(max_examples=30)
def test_no_bytes_keep_it_from_answering_others(streams: list[list[bytes]]) -> None:
    bench = Bench()
    server = bench.serve(max_connections=3)
    with connect(server) as good, contextlib.ExitStack() as stack:
        assert ask(good, b"keep") == b"keep"
        for pieces in streams:
            evil = stack.enter_context(connect(server))
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    evil.sendall(piece)
            assert ask(good, b"x") == b"x"
    server.close()


def test_where_it_cannot_listen_is_said(bench: Bench) -> None:
    taken = bench.serve().address
    for address, reason in ((taken, "in use"), (Address("192.0.2.1", 0), "assign"), (Address("no such host", 1), "")):
        with pytest.raises(ConfigurationError, match=f"can't be listened on: .*{reason}"):
            bench.serve(address=address)


def test_a_forked_child_lets_go_of_it(bench: Bench) -> None:
    server = bench.serve()
    with connect(server) as connection:
        assert ask(connection, b"x") == b"x"
        child = os.fork()
        if child == 0:
            server.forsake()
            os._exit(0)
        os.waitpid(child, 0)
        assert ask(connection, b"y") == b"y"


def test_clients_use_a_connection_again_and_notice_that_it_is_stale(bench: Bench) -> None:
    server, clients = bench.serve(), FrameClients()
    for payload in (b"one", b"two"):
        assert clients.ask(server.address, payload, MAX) == payload
    clients.send(server.address, b"quiet")
    assert len(server._connections) == 1
    server.close()
    with pytest.raises(PeerUnreachableError, match="can't be reached \\(connecting"):
        clients.ask(server.address, b"x", MAX)
    bench.serve(address=server.address)
    assert clients.ask(server.address, b"three", MAX) == b"three"
    clients.close()
    with pytest.raises(ClosedError):
        clients.send(server.address, b"x")


def test_a_client_gives_up_and_refuses_what_is_too_long(bench: Bench) -> None:
    server, clients = bench.serve(), FrameClients(timeout=0.05)
    with pytest.raises(PeerUnreachableError, match=r"waiting for the answer.*timed out"):
        clients.ask(server.address, b"quiet", MAX)
    clients.close()
    clients = FrameClients()
    with pytest.raises(MetadataDecodeError, match="a frame of 5 bytes: 1 to 4 are read"):
        clients.ask(server.address, b"12345", 4)
    with pytest.raises(PeerUnreachableError, match="hung up without an answer"):
        clients.ask(server.address, b"refuse", MAX)
    clients.close()


def test_closing_wakes_who_waits_for_an_answer(bench: Bench) -> None:
    server, clients = bench.serve(), FrameClients()
    failures: list[Exception] = []

    def wait() -> None:
        try:
            clients.ask(server.address, b"quiet", MAX)
        except PeerUnreachableError as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: any(connection.is_idle for connection in server._connections))
    eventually(lambda: clients._busy)
    clients.close()
    thread.join(20)
    assert failures


def test_idle_connections_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.exchange.client.MAX_IDLE", 1)
    first, second, clients = bench.serve(), bench.serve(), FrameClients()
    clients.send(first.address, b"quiet")
    clients.send(second.address, b"quiet")
    eventually(lambda: not first._connections and second._connections)
    clients.close()
    with pytest.raises(PeerUnreachableError):
        FrameClient(Address("127.0.0.1", 1), Deadline(5))
