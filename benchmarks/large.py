"""Publishing and loading more memory than fits into one value of etcd. NIXL can't, so it is not measured."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.figure import Measurement
from benchmarks.participant import blocks
from benchmarks.process import Process
from trunkline import Agent, DescriptorList, MemoryKind, PeerUpdated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from benchmarks.run import Run

REGIONS, TENSORS, SIZE = 100_000, 50_000, 64
"""How many regions are registered, how many of them are tensors with names, and how many bytes each has."""


class LargeAgent:
    """An agent with that much memory, or that loads one, in a process of its own. Times are in seconds."""

    def __init__(self, name: str, store: str) -> None:
        self._agent = Agent(name, store=store, timeout=100)
        self._memory = np.zeros(REGIONS * SIZE, np.uint8)
        self._kept: list[Any] = []

    def register(self) -> float:
        began = time.perf_counter()
        tensors = self._memory[: TENSORS * SIZE].reshape(TENSORS, 8, 8)
        self._agent.register(
            {f"layers.{row // 100}.{row % 100}.weight": tensors[row] for row in range(TENSORS)}, name="kv"
        )
        rows = blocks(self._memory.ctypes.data + TENSORS * SIZE, REGIONS - TENSORS, SIZE, SIZE)
        self._agent.register(DescriptorList.of(MemoryKind.DRAM, rows))
        return time.perf_counter() - began

    def register_one(self) -> None:
        self._kept.append(self._agent.register(np.zeros(SIZE, np.uint8), name=f"one-{len(self._kept)}"))

    def publish(self) -> tuple[float, float, float]:
        """Return when the call began and ended, and how many bytes of memory it took at most, beyond what was there."""
        before = _reset_peak()
        began = time.monotonic()
        self._agent.publish()
        return began, time.monotonic(), _memory("VmHWM") - before

    def fetch(self, name: str) -> tuple[float, float]:
        """Return how long it took, and how many bytes it took at most, beyond what was there."""
        before = _reset_peak()
        began = time.monotonic()
        self._agent.fetch(name)
        return time.monotonic() - began, _memory("VmHWM") - before

    def wait_update(self, name: str) -> tuple[float, float]:
        """Return when a loaded peer was brought up to date, and the bytes that took as above."""
        before = _reset_peak()
        with self._agent.watch(name) as watch:
            while not isinstance(watch.next(100), PeerUpdated):
                pass
        return time.monotonic(), _memory("VmHWM") - before

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of metadata and catalog."""
        metadata, catalog = self._agent.local_metadata(), self._agent.card()
        return len(metadata), len(catalog) - len(metadata)

    def close(self) -> None:
        self._agent.close()


def measure(run: Run, side: str) -> Iterator[Measurement]:
    """Let ``a`` publish and ``b`` load it; then let ``a`` publish one region more."""
    if side != "ours":
        return
    with Process(LargeAgent, "large-a", run.store) as a, Process(LargeAgent, "large-b", run.store) as b:
        registered = a.call("register")
        what = f"{REGIONS:,} regions, {TENSORS:,} named"
        yield Measurement(f"{what}: register", "s", registered)
        began, ended, memory = a.call("publish")
        yield Measurement(f"{what}: publish", "s", ended - began)
        yield Measurement(f"{what}: publish, peak memory", "MB", memory / 1e6)
        took, memory = b.call("fetch", "large-a")
        yield Measurement(f"{what}: fetch and load", "s", took)
        yield Measurement(f"{what}: fetch and load, peak memory", "MB", memory / 1e6)
        b.start("wait_update", "large-a")
        time.sleep(0.5)  # for its wait to begin
        a.call("register_one")
        began, ended, memory = a.call("publish")
        updated, loaded = b.result()
        yield Measurement("one more: publish", "s", ended - began)
        yield Measurement("one more: publish, peak memory", "MB", memory / 1e6)
        yield Measurement("one more: publish → loaded at the peer", "s", updated - began)
        yield Measurement("one more: loaded at the peer, peak memory", "MB", loaded / 1e6)
        metadata, rest = a.call("sizes")
        yield Measurement(f"{what}: metadata", "MB", metadata / 1e6)
        yield Measurement(f"{what}: catalog", "MB", rest / 1e6)


def _reset_peak() -> float:
    """Have the kernel measure the peak from here on; return the bytes of memory that are in use now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> float:
    """Return a line of the process's status in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024.0
