"""Trunkline's side."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.participant import WARMUP, blocks
from trunkline import Agent, DescriptorList, MemoryKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trunkline import Peer, TransferHandle

DRAM = MemoryKind.DRAM


class Ours:
    """A Trunkline agent, as ``Participant`` says."""

    def __init__(self, name: str, store: str | None) -> None:
        self._agent = Agent(name, store=store)
        self._peer: Peer
        self._memory: list[NDArray[np.uint8]] = []
        self._base = 0
        self._remote = 0

    def register(self, count: int, size: int) -> int:
        memory = np.ones(count * size, np.uint8)
        self._memory.append(memory)
        self._base = memory.ctypes.data
        self._agent.register(DescriptorList.of(DRAM, blocks(self._base, count, size, size)))
        return self._base

    def metadata(self) -> bytes:
        return self._agent.local_metadata()

    def load(self, data: bytes, address: int) -> None:
        self._peer, self._remote = self._agent.load_peer(data), address
        self._peer.connect()  # what is made before the peer has answered goes through UCX

    def move(self, operation: str, size: int, repetitions: int) -> list[float]:
        handle = self._start(operation, 1, size, size).wait()
        times = []
        for _ in range(WARMUP + repetitions):
            began = time.perf_counter()
            handle.post()
            handle.wait()
            times.append(time.perf_counter() - began)
        return times[WARMUP:]

    def scatter(self, operation: str, count: int, size: int, stride: int, repetitions: int) -> dict[str, list[float]]:
        times: dict[str, list[float]] = {"plan": [], "post": [], "total": [], "again": []}
        for _ in range(1 + repetitions):
            began = time.perf_counter()
            handle = self._start(operation, count, size, stride)
            posted = time.perf_counter()
            handle.wait()
            ended = time.perf_counter()
            post = handle.telemetry.post_us / 1e6
            handle.post()
            handle.wait()
            times["again"].append(time.perf_counter() - ended)
            times["plan"].append(posted - began - post)
            times["post"].append(post)
            times["total"].append(ended - began)
        return {name: values[1:] for name, values in times.items()}

    def _start(self, operation: str, count: int, size: int, stride: int) -> TransferHandle:
        local = DescriptorList.of(DRAM, blocks(self._base, count, size, stride))
        remote = DescriptorList.of(DRAM, blocks(self._remote, count, size, stride))
        if operation == "READ":
            return self._agent.read(remote, into=local, peer=self._peer)
        return self._agent.write(local, to=remote, peer=self._peer)

    def ping(self, peer: str, payload: bytes, repetitions: int) -> list[float]:
        times = []
        for _ in range(WARMUP + repetitions):
            began = time.perf_counter()
            self._agent.notify(peer, payload)
            self._agent.wait_notification()
            times.append(time.perf_counter() - began)
        return times[WARMUP:]

    def echo(self, peer: str, repetitions: int) -> None:
        for _ in range(WARMUP + repetitions):
            self._agent.notify(peer, self._agent.wait_notification().payload)

    def publish(self) -> tuple[float, float]:
        began = time.monotonic()
        self._agent.publish()
        return began, time.monotonic()

    def withdraw(self) -> float:
        began = time.monotonic()
        self._agent.withdraw()
        return began

    def fetch(self, name: str) -> tuple[float, float]:
        began = time.monotonic()
        self._agent.fetch(name)
        return began, time.monotonic()

    def wait_forgotten(self, name: str) -> float:
        self._agent.peer(name).wait_gone()
        return time.monotonic()

    def fetch_many(self, names: Sequence[str]) -> float:
        began = time.monotonic()
        self._agent.fetch_many(names)
        return time.monotonic() - began

    def forget(self, name: str) -> None:
        self._agent.unload_peer(name)

    def encode(self, repetitions: int) -> list[float]:
        times = []
        for _ in range(WARMUP + repetitions):
            began = time.perf_counter()
            self._agent.local_metadata()
            times.append(time.perf_counter() - began)
        return times[WARMUP:]

    def decode(self, data: bytes, repetitions: int) -> list[float]:
        times = []
        for _ in range(WARMUP + repetitions):
            began = time.perf_counter()
            peer = self._agent.load_peer(data)
            times.append(time.perf_counter() - began)
            self._agent.unload_peer(peer.name)
        return times[WARMUP:]

    def close(self) -> None:
        self._agent.close()


class OurCrowd:
    """Trunkline agents, as ``Crowd`` says."""

    def __init__(self, names: Sequence[str], size: int, store: str) -> None:
        self._agents = [Agent(name, store=store) for name in names]
        for agent in self._agents:
            agent.register(np.ones(size, np.uint8))
            agent.publish()

    def close(self) -> None:
        for agent in self._agents:
            agent.close(drain=0)
