"""The call sequences of real clients, between two processes, block by block over many regions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.integration.nixl.connectors import (
    BLOCK,
    BLOCKS,
    REGIONS,
    DynamoConnection,
    LmcacheChannel,
    RayTransport,
    SglangManager,
    VllmWorker,
    content,
)

from trunkline.nixl._bindings import nixlNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]


class Remote:
    """A worker in a process of its own."""

    def __init__(self, kind: str, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.nixl.connector_process", kind, name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "UCX_NET_DEVICES": "lo"},
        )
        assert self._answer() == "open"

    def ask(self, method: str, *arguments: object) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps([method, arguments])}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the process ended with status {self.process.wait()}"
        return json.loads(line)


@contextmanager
def remote(kind: type, name: str) -> Iterator[Remote]:
    worker = Remote(kind.__name__, name)
    try:
        yield worker
    finally:
        worker.process.kill()
        worker.process.wait()
        for pipe in (worker.process.stdin, worker.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCX_NET_DEVICES", "lo")
    monkeypatch.delenv("NIXL_ETCD_ENDPOINTS", raising=False)


def test_vllm_decoder_reads_a_prefiller_s_blocks() -> None:
    decoder = VllmWorker("decode")
    with remote(VllmWorker, "prefill") as prefiller:
        prefiller.ask("fill", 1)
        decoder.add_remote("engine-0", *prefiller.ask("handshake_metadata"))
        rng = np.random.default_rng(3)
        for number in range(4):
            local, theirs = rng.permutation(BLOCKS)[:17], rng.permutation(BLOCKS)[:17]
            size, descriptors = decoder.read_blocks("engine-0", local.tolist(), theirs.tolist(), f"request-{number}")
            assert size == 17 * REGIONS * BLOCK
            assert 0 < descriptors <= 17 * REGIONS
            for region, cache in enumerate(decoder.cache.regions):
                assert np.array_equal(cache[local], content(1, region)[theirs])
        assert decoder.read_blocks("engine-0", [], [], "cached") == [0, 0]
        expected = [*(f"request-{number}" for number in range(4)), "cached"]
        assert prefiller.ask("take_done_requests", 5) == expected
        decoder.shut_down()
        with pytest.raises(nixlNotFoundError):
            decoder.wrapper.send_notif("prefill", b"x")
        prefiller.ask("shut_down")


def test_vllm_reads_consecutive_blocks_as_few_descriptors() -> None:
    decoder = VllmWorker("decode")
    with remote(VllmWorker, "prefill") as prefiller:
        prefiller.ask("fill", 2)
        decoder.add_remote("engine-0", *prefiller.ask("handshake_metadata"))
        blocks = list(range(BLOCKS))
        size, descriptors = decoder.read_blocks("engine-0", blocks, blocks, "all")
        assert (size, descriptors) == (REGIONS * BLOCKS * BLOCK, REGIONS)
        assert all(np.array_equal(cache, content(2, region)) for region, cache in enumerate(decoder.cache.regions))
        decoder.shut_down()


def test_sglang_prefiller_writes_chunks_of_pages() -> None:
    prefiller = SglangManager("prefill")
    prefiller.fill(5)
    with remote(SglangManager, "decode") as decoder:
        name, metadata, bases, aux = decoder.ask("registration")
        prefiller.add_peer(name, metadata, bases)
        chunks = [[[0, 1, 2, 3], [8, 9, 10, 11]], [[4, 9, 6], [3, 60, 5]]]
        assert prefiller.send_chunks(name, chunks, aux, room=42) == ["DONE"] * 3
        arrived = decoder.ask("take_messages", "prefill", 3)
        assert sorted(arrived) == ["42_aux", "42_kv_0_0", "42_kv_1_1"]
        # What arrived is read back by the same API.
        back = SglangManager("reader")
        back.add_peer(name, metadata, bases)
        handle = back.agent.make_prepped_xfer(
            "READ", back.local, np.arange(REGIONS * BLOCKS), back.sides[name], np.arange(REGIONS * BLOCKS)
        )
        state = back.agent.transfer(handle)
        while state == "PROC":
            state = back.agent.check_xfer_state(handle)
        assert state == "DONE"
        source, target = ([page for chunk in chunks for page in chunk[side]] for side in (0, 1))
        for region, cache in enumerate(back.cache.regions):
            expected = np.zeros((BLOCKS, BLOCK), np.uint8)
            expected[target] = content(5, region)[source]
            assert np.array_equal(cache, expected)
        back.shut_down()
        decoder.ask("shut_down")
    prefiller.shut_down()


def test_sglang_is_told_when_the_decoder_died() -> None:
    prefiller = SglangManager("prefill")
    with remote(SglangManager, "decode") as decoder:
        name, metadata, bases, aux = decoder.ask("registration")
        prefiller.add_peer(name, metadata, bases)
        pages = [[[0, 1], [0, 1]]]
        assert prefiller.send_chunks(name, pages, aux, room=1) == ["DONE"] * 2
        decoder.process.kill()
        decoder.process.wait()
        assert prefiller.send_chunks(name, pages, aux, room=2) == ["nixlRemoteDisconnectError"]
    prefiller.shut_down()


def test_dynamo_reads_and_takes_the_notification_out() -> None:
    reader = DynamoConnection("reader")
    with remote(DynamoConnection, "passive") as passive:
        passive.ask("fill", 9)
        name, metadata, address = passive.ask("descriptor")
        assert reader.read(name, metadata, address, "key-1") == "DONE"
        assert (reader.memory == 9).all()
        assert reader.read(name, metadata, address, "key-2") == "DONE"
        assert passive.ask("wait_for", "reader", "key-2") == ["key-1"]
        assert passive.ask("wait_for", "reader", "key-1") == []
        passive.ask("shut_down")
    reader.shut_down()


def test_ray_adds_a_known_agent_again_for_each_tensor() -> None:
    getter = RayTransport("getter")
    with remote(RayTransport, "putter") as putter:
        for value in (3, 4, 5):
            assert getter.get(*putter.ask("put", value)) == value


def test_lmcache_puts_chunks_by_lists_of_indices() -> None:
    sender, reader = LmcacheChannel("sender"), LmcacheChannel("reader")
    sender.fill(100)
    with remote(LmcacheChannel, "receiver") as receiver:
        metadata = receiver.ask("metadata")
        sender.connect(*metadata)
        assert sender.put([0, 1, 5], [31, 30, 2]) == "DONE"
        reader.connect(*metadata)
        handle = reader.agent.make_prepped_xfer("READ", reader.local, [0, 1, 2], reader.remote, [31, 30, 2])
        state = reader.agent.transfer(handle)
        while state == "PROC":
            state = reader.agent.check_xfer_state(handle)
        assert reader.memory[:3, 0].tolist() == [100, 101, 105]
