"""NIXL's side: NVIDIA's wheel, used as its own examples do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.participant import WARMUP, blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

POLL = 0.0002
"""Seconds between two looks at what NIXL offers no way to wait for. A busy loop would take the processor from the
thread that is waited for."""

PAUSE = 50e-6 if (os.cpu_count() or 1) < 4 else 0.0
"""Seconds between two looks for notifications. Two pollers beside two progress threads of NIXL's, which are always
busy, would wait for each other's time slices on fewer processors: 8 ms a round trip instead of 0.2."""

PATIENCE = 30.0
HEARING = 1.0
"""Seconds in which a NIXL agent hears of a withdrawal, if it does."""


def why_unavailable() -> str | None:
    """Return why NIXL can't be measured here; None if it can."""
    tried = subprocess.run([sys.executable, "-c", "import nixl_cu12._api"], capture_output=True, text=True, check=False)
    return tried.stderr.strip().rpartition("\n")[2] if tried.returncode else None


class Nixl:
    """A NIXL agent, as ``Participant`` says."""

    def __init__(self, name: str, store: str | None) -> None:
        if store is not None:
            os.environ["NIXL_ETCD_ENDPOINTS"] = store
        from nixl_cu12._api import nixl_agent, nixl_agent_config

        self._agent: Any = nixl_agent(name, nixl_agent_config(backends=["UCX"]))
        self._peer = ""
        self._memory: list[NDArray[np.uint8]] = []
        self._base = 0
        self._remote = 0

    def register(self, count: int, size: int) -> int:
        memory = np.ones(count * size, np.uint8)
        self._memory.append(memory)
        self._base = memory.ctypes.data
        rows = blocks(self._base, count, size, size)
        self._agent.register_memory([(*row, "") for row in rows.tolist()], "DRAM")
        return self._base

    def metadata(self) -> bytes:
        return bytes(self._agent.get_agent_metadata())

    def load(self, data: bytes, address: int) -> None:
        self._peer, self._remote = self._add(data), address

    def _add(self, data: bytes) -> str:
        name = self._agent.add_remote_agent(data)
        return name.decode() if isinstance(name, bytes) else str(name)

    def move(self, operation: str, size: int, repetitions: int) -> list[float]:
        agent = self._agent
        local = agent.get_xfer_descs(blocks(self._base, 1, size, size), "DRAM")
        remote = agent.get_xfer_descs(blocks(self._remote, 1, size, size), "DRAM")
        handle = agent.initialize_xfer(operation, local, remote, self._peer)
        times = []
        for _ in range(1 + WARMUP + repetitions):
            began = time.perf_counter()
            self._finish(handle, agent.transfer(handle))
            times.append(time.perf_counter() - began)
        agent.release_xfer_handle(handle)
        return times[1 + WARMUP :]

    def scatter(self, operation: str, count: int, size: int, stride: int, repetitions: int) -> dict[str, list[float]]:
        agent = self._agent
        which = np.arange(count, dtype=np.int32)
        times: dict[str, list[float]] = {"plan": [], "post": [], "total": [], "again": []}
        for _ in range(1 + repetitions):
            began = time.perf_counter()
            local = agent.get_xfer_descs(blocks(self._base, count, size, stride), "DRAM")
            remote = agent.get_xfer_descs(blocks(self._remote, count, size, stride), "DRAM")
            near = agent.prep_xfer_dlist("NIXL_INIT_AGENT", local)
            far = agent.prep_xfer_dlist(self._peer, remote)
            handle = agent.make_prepped_xfer(operation, near, which, far, which)
            planned = time.perf_counter()
            state = agent.transfer(handle)
            posted = time.perf_counter()
            self._finish(handle, state)
            ended = time.perf_counter()
            self._finish(handle, agent.transfer(handle))
            times["again"].append(time.perf_counter() - ended)
            times["plan"].append(planned - began)
            times["post"].append(posted - planned)
            times["total"].append(ended - began)
            agent.release_xfer_handle(handle)
            agent.release_dlist_handle(near)
            agent.release_dlist_handle(far)
        return {name: values[1:] for name, values in times.items()}

    def _finish(self, handle: Any, state: str) -> None:
        while state == "PROC":
            state = self._agent.check_xfer_state(handle)
        if state != "DONE":
            raise RuntimeError(f"NIXL's transfer ended as {state}")

    def ping(self, peer: str, payload: bytes, repetitions: int) -> list[float]:
        times = []
        for _ in range(WARMUP + repetitions):
            began = time.perf_counter()
            self._agent.send_notif(peer, payload)
            while not self._agent.get_new_notifs().get(peer):
                _pause()
            times.append(time.perf_counter() - began)
        return times[WARMUP:]

    def echo(self, peer: str, repetitions: int) -> None:
        answered = 0
        while answered < WARMUP + repetitions:
            for payload in self._agent.get_new_notifs().get(peer, []):
                self._agent.send_notif(peer, payload)
                answered += 1
            _pause()

    def publish(self) -> tuple[float, float]:
        began = time.monotonic()
        self._agent.send_local_metadata()
        return began, time.monotonic()

    def withdraw(self) -> float:
        began = time.monotonic()
        self._agent.invalidate_local_metadata()
        return began

    def fetch(self, name: str) -> tuple[float, float]:
        began = time.monotonic()
        self._agent.fetch_remote_metadata(name)
        return began, _until(lambda: bool(self._agent.check_remote_metadata(name)))

    def wait_forgotten(self, name: str) -> float | None:
        try:
            return _until(lambda: not self._agent.check_remote_metadata(name), HEARING)
        except TimeoutError:  # its watch misses a withdrawal now and then
            return None

    def fetch_many(self, names: Sequence[str]) -> float:
        agent = self._agent
        began = time.monotonic()
        for name in names:
            agent.fetch_remote_metadata(name)
        missing = set(names)

        def are_loaded() -> bool:
            missing.difference_update([name for name in missing if agent.check_remote_metadata(name)])
            return not missing

        return _until(are_loaded) - began

    def forget(self, name: str) -> None:
        if self.wait_forgotten(name) is None:
            self._agent.remove_remote_agent(name)

    def encode(self, repetitions: int) -> list[float]:
        times = []
        for _ in range(WARMUP + repetitions):
            began = time.perf_counter()
            self._agent.get_agent_metadata()
            times.append(time.perf_counter() - began)
        return times[WARMUP:]

    def decode(self, data: bytes, repetitions: int) -> list[float]:
        times = []
        for _ in range(WARMUP + repetitions):
            began = time.perf_counter()
            name = self._add(data)
            times.append(time.perf_counter() - began)
            self._agent.remove_remote_agent(name)
        return times[WARMUP:]

    def close(self) -> None:
        self._agent = None


class NixlCrowd:
    """NIXL agents, as ``Crowd`` says, without progress threads: those are always busy, and need not be."""

    def __init__(self, names: Sequence[str], size: int, store: str) -> None:
        os.environ["NIXL_ETCD_ENDPOINTS"] = store
        from nixl_cu12._api import nixl_agent, nixl_agent_config

        self._agents: list[Any] = []
        self._memory: list[NDArray[np.uint8]] = []
        for name in names:
            agent = nixl_agent(name, nixl_agent_config(enable_prog_thread=False, backends=["UCX"]))
            memory = np.ones(size, np.uint8)
            agent.register_memory([(memory.ctypes.data, size, 0, "")], "DRAM")
            agent.send_local_metadata()
            self._agents.append(agent)
            self._memory.append(memory)
        time.sleep(HEARING)  # sending returns before etcd has answered

    def close(self) -> None:
        self._agents.clear()


def _pause() -> None:
    if PAUSE:
        time.sleep(PAUSE)


def _until(condition: Callable[[], bool], patience: float = PATIENCE) -> float:
    """Wait, and return when it was seen to hold."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"NIXL did not do it in {patience:g} s")
        time.sleep(POLL)
    return time.monotonic()
