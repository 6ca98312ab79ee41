"""Our UCX backend and NVIDIA's NIXL, each in its process: both load the other's metadata, move bytes and notify."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline.backend.contract import ConnectionInfo, Operation, Status
from trunkline.backend.plugins.ucx import UcxBackend
from trunkline.memory.kind import MemoryKind
from trunkline.metadata import codec
from trunkline.metadata.model import AgentMetadata, SectionMetadata
from trunkline.metadata.notification import decode_notification, encode_notification
from trunkline.testing.link import finish, make_posting, segments_of
from trunkline.testing.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(find_spec("nixl_cu12") is None, reason="the nixl-cu12 wheel is not installed")

SIZE = 9 << 20


class NixlPeer:
    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("nixl_peer.py"), str(SIZE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"UCX_NET_DEVICES": "lo", "NIXL_LOG_LEVEL": "ERROR"} | environment,
        )
        metadata, self.address = self._read()
        self.metadata = codec.decode(base64.b64decode(metadata))

    def ask(self, *command: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        watchdog = threading.Timer(PATIENCE, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout:
                if line.startswith("> "):
                    return json.loads(line[2:])
            raise RuntimeError(f"NIXL ended with {self._process.wait()}")
        finally:
            watchdog.cancel()


@pytest.fixture(params=[{}, {"UCX_TLS": "tcp"}], ids=["all", "tcp"])
def real(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[NixlPeer]:
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)
    peer = NixlPeer(request.param)
    yield peer
    peer.close()


@pytest.fixture
def ours(real: NixlPeer) -> Iterator[UcxBackend]:
    """Our backend, driven by a thread (its environment is the one that ``real`` sets)."""
    backend = UcxBackend("ours", devices="lo")
    ended = threading.Event()

    def drive() -> None:
        while not ended.wait(0.0005):
            backend.progress()

    thread = threading.Thread(target=drive, name="ours")
    thread.start()
    yield backend
    ended.set()
    thread.join(PATIENCE)
    backend.close()


def test_we_reach_its_memory_and_notify_it(real: NixlPeer, ours: UcxBackend) -> None:
    peer = ours.load_peer("real", ConnectionInfo(real.metadata.connections["UCX"]))
    section = real.metadata.sections[0]
    remote_slots = peer.load_segments(section.kind, section.segments, section.keys)
    peer.connect(PATIENCE)
    local = np.full(SIZE, 7, np.uint8)
    slots = ours.register(MemoryKind.DRAM, segments_of(local))
    rows = [(at, at, 4096) for at in range(0, SIZE, 8192)]
    write = make_posting(Operation.WRITE, local, slots, local, remote_slots, rows)
    write.remote_address[:] = write.local_address - np.uint64(local.ctypes.data) + np.uint64(real.address)
    read = replace(write, operation=Operation.READ)
    request = ours.prepare(write, peer)
    assert finish(request, request.post(encode_notification("ours", b"written"))) == Status.DONE, request.reason
    assert real.ask("count", 7) == SIZE // 2
    end = time.monotonic() + PATIENCE
    notes: list[Any] = []
    while not notes and time.monotonic() < end:
        notes = real.ask("notifications")
    assert notes == [["ours", "written"]]
    real.ask("fill", 42)
    request = ours.prepare(read, peer)
    assert finish(request, request.post()) == Status.DONE, request.reason
    assert np.count_nonzero(local == 42) == SIZE // 2
    peer.close()


def test_it_reaches_our_memory_and_notifies_us(real: NixlPeer, ours: UcxBackend) -> None:
    memory = np.zeros(SIZE, np.uint8)
    slots = ours.register(MemoryKind.DRAM, segments_of(memory))
    section = SectionMetadata("UCX", MemoryKind.DRAM, segments_of(memory), ours.remote_keys(slots))
    blob = codec.encode(AgentMetadata("ours", {"UCX": ours.connection_info()}, (section,)))
    assert real.ask("load", base64.b64encode(blob).decode()) == "ours"
    real.ask("fill", 5)
    assert real.ask("transfer", "WRITE", memory.ctypes.data, SIZE, "pushed") == "DONE"
    assert (memory == 5).all()
    memory[:] = 6
    assert real.ask("transfer", "READ", memory.ctypes.data, SIZE, "pulled") == "DONE"
    assert real.ask("count", 6) == SIZE
    real.ask("notify", "by itself")
    arrived: list[tuple[str, bytes]] = []
    end = time.monotonic() + PATIENCE
    while len(arrived) < 3 and time.monotonic() < end:
        payloads, dropped = ours.take_notifications()
        arrived += [decode_notification(payload) for payload, _ in payloads]
        assert dropped == 0
        time.sleep(0.001)
    assert arrived == [("real", b"pushed"), ("real", b"pulled"), ("real", b"by itself")]
