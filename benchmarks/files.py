"""Memory to files and back, blocks in shuffled order: the POSIX backend against NIXL's plug-in of that name."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.figure import Measurement
from benchmarks.place import MEMORY
from benchmarks.process import Process
from trunkline.backend.contract import Operation, Posting, Status
from trunkline.backend.plugins.posix import PosixBackend
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.run import Run

WORK = [("10,000 × 4 KiB", 4096, 10_000), ("1,000 × 64 KiB", 1 << 16, 1000), ("64 × 1 MiB", 1 << 20, 64)]
REPETITIONS = 10

OPTIONS: dict[str, dict[str, str]] = {"": {}, ", io_uring": {"use_uring": "true"}}
"""NIXL's plug-in with its default (Linux AIO), and with what its documentation also offers."""


class Files:
    """One side's storage backend, in a process of its own. Times are in seconds, from ``post`` to the end seen."""

    def __init__(self, options: dict[str, str]) -> None:
        del options  # ours has none that matter here
        self._backend = PosixBackend("files")

    def move(self, path: str, operation: str, size: int, count: int, repetitions: int) -> list[float]:
        """Move ``count`` blocks of ``size`` bytes between memory, in order, and a file, in shuffled order."""
        memory, descriptor, offset, place = _prepare(path, size, count)
        backend = self._backend
        near = backend.register(MemoryKind.DRAM, np.array([[memory.ctypes.data, memory.nbytes, 0]], np.uint64))
        far = backend.register(MemoryKind.FILE, np.array([[0, memory.nbytes, descriptor]], np.uint64))
        posting = Posting(
            Operation[operation],
            offset + np.uint64(memory.ctypes.data),
            place,
            np.full(count, size, np.uint64),
            np.repeat(near, count),
            np.repeat(far, count),
        )

        def once() -> float:
            request = backend.prepare(posting, None)
            began = time.perf_counter()
            status = request.post()
            while status == Status.IN_PROGRESS:
                status = request.poll()
            if status != Status.DONE:
                raise RuntimeError(request.reason)
            return time.perf_counter() - began

        times = _repeat(once, repetitions)
        backend.deregister(np.concatenate([near, far]))
        os.close(descriptor)
        return times

    def close(self) -> None:
        self._backend.close()


class NixlFiles:
    """NIXL's, likewise."""

    def __init__(self, options: dict[str, str]) -> None:
        from nixl_cu12._api import nixl_agent, nixl_agent_config

        self._agent: Any = nixl_agent("files", nixl_agent_config(backends=[]))
        self._agent.create_backend("POSIX", options)

    def move(self, path: str, operation: str, size: int, count: int, repetitions: int) -> list[float]:
        memory, descriptor, offset, place = _prepare(path, size, count)
        agent, backends = self._agent, ["POSIX"]
        near = agent.register_memory([(memory.ctypes.data, memory.nbytes, 0, "")], "DRAM", backends=backends)
        far = agent.register_memory([(0, memory.nbytes, descriptor, "")], "FILE", backends=backends)
        length, device = np.full(count, size, np.uint64), np.full(count, descriptor, np.uint64)
        rows = [offset + np.uint64(memory.ctypes.data), length, np.zeros(count, np.uint64)]
        local = agent.get_xfer_descs(np.stack(rows, 1), "DRAM")
        remote = agent.get_xfer_descs(np.stack([place, length, device], 1), "FILE")

        def once() -> float:
            handle = agent.initialize_xfer(operation, local, remote, agent.name, backends=backends)
            began = time.perf_counter()
            state = agent.transfer(handle)
            while state == "PROC":
                state = agent.check_xfer_state(handle)
            if state != "DONE":
                raise RuntimeError(f"NIXL's transfer ended as {state}")
            took = time.perf_counter() - began
            agent.release_xfer_handle(handle)
            return took

        times = _repeat(once, repetitions)
        agent.deregister_memory(far)
        agent.deregister_memory(near)
        os.close(descriptor)
        return times

    def close(self) -> None:
        self._agent = None


def measure(run: Run, side: str) -> Iterator[Measurement]:
    """Write and read files in the page cache of a disk and, where there is one, of a file system in memory."""
    places = {"disk": Path(tempfile.gettempdir())} | ({"memory": MEMORY} if os.access(MEMORY, os.W_OK) else {})
    for label, options in OPTIONS.items():
        if options and not run.has_nixl:
            continue
        with Process(NixlFiles if side == "nixl" else Files, options) as process:
            for where, place in places.items():
                with tempfile.TemporaryDirectory(dir=place) as directory:
                    for what, size, count in WORK:
                        path = str(Path(directory, str(size)))
                        for operation in ("WRITE", "READ"):
                            repetitions = run.repeat(REPETITIONS)
                            times = process.call("move", path, operation, size, count, repetitions)
                            rate = size * count / statistics.median(times) / 1e9
                            yield Measurement(f"{operation} {what}, {where}{label}", "GB/s", rate, "≥ 1")


def _prepare(path: str, size: int, count: int) -> tuple[Any, int, Any, Any]:
    memory = np.ones(size * count, np.uint8)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.ftruncate(descriptor, memory.nbytes)
    offset = np.arange(count, dtype=np.uint64) * np.uint64(size)
    return memory, descriptor, offset, offset[np.random.default_rng(0).permutation(count)]


def _repeat(once: Callable[[], float], repetitions: int) -> list[float]:
    return [once() for _ in range(1 + repetitions)][1:]
