"""Every kind of bad input gets its own error, promptly, and leaves the agent working."""

from __future__ import annotations

import gc
import os
import re
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline import Agent, DescriptorList, MemoryKind
from trunkline.errors import (
    BackendUnavailableError,
    ClosedError,
    ConfigurationError,
    DescriptorError,
    ForkedError,
    MemoryRegistrationError,
    MetadataDecodeError,
    MetadataMismatchError,
    NoBackendError,
    NoStoreError,
    NotRegisteredError,
    PeerGoneError,
    ReadOnlyMemoryError,
    SegmentNotFoundError,
    ShapeMismatchError,
    StoreUnavailableError,
    TransferStateError,
    UnknownPeerError,
    UnsupportedBufferError,
)
from trunkline.metadata.codec import decode, encode
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.agent.conftest import Pair

DRAM = MemoryKind.DRAM


class Sides:
    """Memory on both sides of a pair, and a check that the agents still work."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.theirs = np.arange(4096, dtype=np.uint8).reshape(64, 64)
        self.mine = np.zeros((64, 64), np.uint8)
        pair.prefill.register(self.theirs, name="kv")
        pair.prefill.publish()
        self.local = pair.decode.register(self.mine, name="kv")
        self.peer = pair.decode.fetch("prefill-0")
        self.remote = self.peer["kv"]

    def check_alive(self) -> None:
        self.mine[:] = 0
        self.pair.decode.read(self.remote, into=self.local).wait()
        np.testing.assert_array_equal(self.mine, self.theirs)


@pytest.fixture
def sides(pair: Pair) -> Iterator[Sides]:
    sides = Sides(pair)
    yield sides
    sides.check_alive()


def rows(array: np.ndarray[Any, Any], start: int = 0, length: int | None = None) -> DescriptorList:
    return DescriptorList.of(DRAM, [(array.ctypes.data + start, array.nbytes if length is None else length, 0)])


@pytest.mark.parametrize("start", [-8, 4090])
def test_a_range_that_is_registered_in_part(sides: Sides, start: int) -> None:
    here, there = rows(sides.mine, 0, 16), rows(sides.theirs, 0, 16)
    with pytest.raises(NotRegisteredError, match="16 bytes at 0x"):
        sides.pair.decode.read(there, into=rows(sides.mine, start, 16), peer="prefill-0")
    with pytest.raises(SegmentNotFoundError, match="'prefill-0'"):
        sides.pair.decode.read(rows(sides.theirs, start, 16), into=here, peer="prefill-0")


def test_a_range_that_is_not_registered_at_all(sides: Sides) -> None:
    other = np.zeros(16, np.uint8)
    with pytest.raises(NotRegisteredError):
        sides.pair.decode.write(rows(other), to=rows(sides.theirs, 0, 16), peer="prefill-0")


@pytest.mark.parametrize("length", [0, 2**63, 2**64 - 1])
def test_impossible_lengths(length: int) -> None:
    with pytest.raises(DescriptorError):
        DescriptorList.of(DRAM, [(4096, length, 0)])


def test_lists_that_do_not_pair_up(sides: Sides) -> None:
    read = sides.pair.decode.read
    with pytest.raises(ShapeMismatchError, match="2 local blocks against 1"):
        read(
            rows(sides.theirs, 0, 16),
            into=DescriptorList.of(DRAM, [(sides.mine.ctypes.data, 8, 0), (sides.mine.ctypes.data + 8, 8, 0)]),
            peer="prefill-0",
        )
    with pytest.raises(ShapeMismatchError, match="8 bytes here and 16 bytes"):
        read(rows(sides.theirs, 0, 16), into=rows(sides.mine, 0, 8), peer="prefill-0")
    with pytest.raises(ShapeMismatchError, match="don't fit"):
        read(sides.remote[:3], into=sides.local[:4])
    with pytest.raises(DescriptorError, match="overlap"):
        read(sides.remote[[0, 1]], into=sides.local[[5, 5]])
    with pytest.raises(ConfigurationError, match="nothing to transfer"):
        read([])
    with pytest.raises(ConfigurationError, match="needs peer="):
        read(rows(sides.theirs), into=rows(sides.mine))
    with pytest.raises(UnsupportedBufferError, match="pairs with a DescriptorList"):
        read(sides.remote, into=rows(sides.mine), peer="prefill-0")


def test_copies_that_advanced_indexing_makes(sides: Sides) -> None:
    with pytest.raises(UnsupportedBufferError, match="copy that nobody would see filled"):
        sides.pair.decode.read(sides.remote[[1, 3]], into=sides.mine[[1, 3]])
    with pytest.raises(UnsupportedBufferError, match="peer's memory"):
        sides.pair.decode.write(sides.local, to=sides.theirs)


def test_memory_that_can_not_be_registered(sides: Sides) -> None:
    agent = sides.pair.decode
    for memory in (sides.mine[:, ::2], np.zeros(0), object(), "text", np.array([None]), (8, 0, 0)):
        with pytest.raises(UnsupportedBufferError):
            agent.register(memory)
    with pytest.raises(MemoryRegistrationError, match="8 bytes at 0x0"):
        agent.register((0, 8, 0))
    with pytest.raises(NoBackendError, match="BLOCK"):
        agent.register((1, 8, 0), kind=MemoryKind.BLOCK)
    with pytest.raises(MemoryRegistrationError, match="already registered memory as 'kv'"):
        agent.register(np.zeros(8), name="kv")
    agent.register({"x": np.zeros(8)}, name="group")
    with pytest.raises(MemoryRegistrationError, match="already registered memory as 'group/x'"):
        agent.register(np.zeros(8), name="group/x")
    with pytest.raises(ConfigurationError, match="needs a name"):
        agent.register({"a": np.zeros(8)})
    with pytest.raises(ConfigurationError, match="empty"):
        agent.register({}, name="group")


def test_read_only_memory_is_read_from_but_never_filled(sides: Sides) -> None:
    local = sides.pair.decode.register(bytes(range(64)))
    with pytest.raises(ReadOnlyMemoryError):
        sides.pair.decode.read(sides.remote[0], into=local)
    sides.pair.decode.write(local, to=sides.remote[3]).wait()
    assert bytes(sides.theirs[3]) == bytes(range(64))


def test_an_unknown_peer(sides: Sides) -> None:
    for use in (sides.pair.decode.peer, sides.pair.decode.unload_peer):
        with pytest.raises(UnknownPeerError, match=r"has not loaded a peer 'nobody'; it has \['prefill-0'\]"):
            use("nobody")
    with pytest.raises(UnknownPeerError):
        sides.pair.decode.notify("nobody", b"x")
    with pytest.raises(SegmentNotFoundError, match=r"offers no memory named 'weights'; it offers \['kv'\]"):
        sides.peer["weights"]


def test_an_unloaded_peer(pair: Pair) -> None:
    sides = Sides(pair)
    pair.decode.unload_peer("prefill-0")
    with pytest.raises(PeerGoneError, match="unloaded"):
        pair.decode.read(sides.remote, into=sides.local)
    again = pair.decode.fetch("prefill-0")
    pair.decode.read(again["kv"], into=sides.local).wait()


def test_posting_twice(sides: Sides) -> None:
    transfer = sides.pair.decode.read(sides.remote, into=sides.local)
    if not transfer.state.is_quiet:  # over a fast path it may have ended while it was posted
        with pytest.raises(TransferStateError, match="wait for it"):
            transfer.post()
    transfer.wait()
    transfer.post().wait()


@pytest.mark.parametrize("deadline", [0, -1, float("nan")])
def test_impossible_deadlines(sides: Sides, deadline: float) -> None:
    with pytest.raises(ConfigurationError, match="deadline="):
        sides.pair.decode.read(sides.remote, into=sides.local, deadline=deadline)


def test_a_closed_agent(pair: Pair) -> None:
    sides = Sides(pair)
    transfer = pair.decode.read(sides.remote, into=sides.local).wait()
    pair.decode.close()
    agent = pair.decode
    for use in (
        lambda: agent.register(np.zeros(8)),
        lambda: agent.deregister(sides.local),
        lambda: agent.read(sides.remote, into=sides.local),
        agent.publish,
        agent.withdraw,
        lambda: agent.fetch("prefill-0"),
        agent.card,
        agent.local_metadata,
        agent.take_finished,
        agent.take_notifications,
        lambda: agent.wait_notification(timeout=0),
        lambda: agent.load_peer(pair.prefill.card()),
    ):
        with pytest.raises(ClosedError, match="'decode-0' is closed"):
            use()
    with pytest.raises((ClosedError, PeerGoneError)):
        transfer.post()
    assert "closed" in repr(agent)


def test_after_a_fork_the_child_is_told_and_the_parent_goes_on(sides: Sides) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # no pytest in the child: report and leave
        words = []
        for use in (sides.pair.decode.publish, lambda: sides.pair.decode.read(sides.remote, into=sides.local)):
            try:
                use()
                words.append("no error")
            except ForkedError as error:
                words.append(f"{type(error).__name__}: {error}")
            except BaseException as error:
                words.append(f"wrong: {error!r}")
        os.write(writer, "|".join(words).encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    said = os.read(reader, 65536).decode().split("|")
    os.close(reader)
    assert status == 0
    assert len(said) == 2
    assert all(re.match(r"ForkedError: .*make a new Agent", word) for word in said), said


def test_a_store_that_is_not_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match=str(port)):
            Agent("decode-0", store=f"etcd://127.0.0.1:{port}", devices="lo", timeout=0.5)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("store", ["ftp://127.0.0.1:2379", "consul://x", "etcd://", "etcd://host:port"])
def test_a_store_url_that_makes_no_sense(store: str) -> None:
    with pytest.raises(ConfigurationError):
        Agent("decode-0", store=store, devices="lo", timeout=0.5)


@pytest.mark.parametrize("name", ["", "a/b", ".a", "a\nb", "x" * 256, "\udc80"])
def test_impossible_names(name: str) -> None:
    with pytest.raises(ConfigurationError):
        Agent(name, devices="lo")


def test_no_store_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIXL_ETCD_ENDPOINTS", raising=False)
    with Agent("decode-0", devices="lo") as agent:
        for use in (agent.publish, agent.withdraw, lambda: agent.fetch("prefill-0")):
            with pytest.raises(NoStoreError, match=r"NIXL_ETCD_ENDPOINTS; to try: trunkline etcd"):
                use()


def test_a_backend_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match="there is no backend 'warp'"):
        Agent("decode-0", backends=("warp",))


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_UCX_LIBRARY", "/nowhere/libucp.so")
    monkeypatch.delitem(sys.modules, "trunkline.backend.plugins.ucx._native", raising=False)
    with pytest.raises(BackendUnavailableError, match=r"/nowhere/libucp\.so"):
        Agent("decode-0", devices="lo")


def test_an_agent_finds_nobody_in_itself(sides: Sides) -> None:
    with pytest.raises(ConfigurationError, match="can't fetch itself"):
        sides.pair.decode.fetch("decode-0")
    with pytest.raises(MetadataMismatchError, match="its own metadata"):
        sides.pair.decode.load_peer(sides.pair.decode.card())


def test_metadata_under_another_name(sides: Sides) -> None:
    metadata = decode(sides.pair.prefill.local_metadata())
    other = encode(AgentMetadata("somebody", metadata.connections, metadata.sections))
    membership = sides.pair.prefill._membership
    assert membership is not None
    membership.publisher.publish(other)
    with pytest.raises(MetadataMismatchError, match="published as 'prefill-0' is that of agent 'somebody'"):
        sides.pair.decode.fetch("prefill-0")
    sides.pair.prefill.publish()


def hostile() -> dict[str, bytes]:
    with Agent("evil", devices="lo") as agent:
        agent.register(np.zeros(64, np.uint8))
        good = decode(agent.local_metadata())
    address = good.connections["UCX"]
    section = good.sections[0]
    key = section.keys[0]

    def keyed(data: bytes) -> AgentMetadata:
        return AgentMetadata(
            "evil", {"UCX": address}, (SectionMetadata("UCX", DRAM, section.segments, RemoteKeys.of([data])),)
        )

    def addressed(data: bytes) -> AgentMetadata:
        return AgentMetadata("evil", {"UCX": data}, good.sections)

    return {
        "a worker address of another version": encode(addressed(bytes([address[0] | 0x0F]) + address[1:])),
        "a worker address of one byte": encode(addressed(address[:1])),
        "a huge worker address": encode(addressed(address + bytes(1 << 20))),
        "a remote key with an impossible memory type": encode(keyed(key[:8] + b"\xee" + key[9:])),
        "a remote key cut short": encode(keyed(key[:8])),
        "noise": bytes(range(256)),
        "nothing": b"",
        "a card of noise": b"trunkline-card|" + bytes(range(256)),
    }


@pytest.mark.parametrize("what", list(hostile()))
def test_hostile_metadata(sides: Sides, what: str) -> None:
    with pytest.raises(MetadataDecodeError):
        sides.pair.decode.load_peer(hostile()[what])
    with pytest.raises(UnknownPeerError):
        sides.pair.decode.peer("evil")


def test_no_backend_in_common(sides: Sides) -> None:
    with pytest.raises(NoBackendError, match=r"\['UCX', 'CMA'\] here, \['GDS'\] there"):
        sides.pair.decode.load_peer(encode(AgentMetadata("storage", {"GDS": b"x"})))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_leaked_agent_warns_and_is_closed() -> None:
    agent = Agent("leaked", devices="lo")
    agent.register(np.zeros(64, np.uint8))
    engine = agent.engine
    gc.disable()  # at once: it holds memory, sockets and threads, so nothing it is made of may lead back to it
    try:
        with pytest.warns(ResourceWarning, match="leaked.*without close"):
            del agent
    finally:
        gc.enable()
    with pytest.raises(ClosedError):
        engine.check_open()


def test_an_agent_that_is_left_open_does_not_keep_the_interpreter(tmp_path: Any) -> None:
    import subprocess

    code = "from trunkline import Agent; agent = Agent('left-open', devices='lo'); print('up', flush=True)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert done.stdout == "up\n"
    assert done.returncode == 0, done.stderr
