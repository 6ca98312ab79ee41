"""What one call costs through NIXL's Python API: NIXL's own, and ours of the same form."""

from __future__ import annotations

import importlib
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.figure import Measurement
from benchmarks.participant import WARMUP, blocks
from benchmarks.process import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.run import Run

PACKAGES = {"ours": "trunkline.nixl", "nixl": "nixl_cu12"}
COUNT, BLOCK, STRIDE = 10_000, 4096, 4096 + 64
BATCH = 200
"""How often a call that takes about a microsecond is made between two looks at the clock."""


class Caller:
    """One agent that calls, and has its own memory as the remote side.

    Args:
        package: Whose API it is.
    """

    def __init__(self, package: str) -> None:
        api: Any = importlib.import_module(f"{package}._api")
        self._agent: Any = api.nixl_agent("caller", api.nixl_agent_config(backends=["UCX"]))
        self._memory = np.ones(COUNT * STRIDE, np.uint8)
        base = self._memory.ctypes.data
        self._agent.register_memory([(base, self._memory.nbytes, 0, "")], "DRAM")
        self._rows = blocks(base, COUNT, BLOCK, STRIDE)
        self._sides = [self._agent.prep_xfer_dlist(name, self._rows, "DRAM") for name in ("", "caller")]
        self._order = np.random.default_rng(1).permutation(COUNT)
        one = self._agent.get_xfer_descs(blocks(base, 1, 64, 64), "DRAM")
        self._done = self._agent.initialize_xfer("READ", one, one, "caller")
        state = self._agent.transfer(self._done)
        while state == "PROC":
            state = self._agent.check_xfer_state(self._done)

    def describe(self) -> object:
        return self._agent.get_xfer_descs(self._rows, "DRAM")

    def prepare(self) -> object:
        return self._agent.prep_xfer_dlist("", self._rows, "DRAM")

    def make(self) -> object:
        local, remote = self._sides
        return self._agent.make_prepped_xfer("READ", local, self._order, remote, self._order)

    def initialize(self) -> object:
        descs = self._agent.get_xfer_descs(self._rows, "DRAM")
        return self._agent.initialize_xfer("READ", descs, descs, "caller")

    def check(self) -> object:
        return self._agent.check_xfer_state(self._done)

    def listen(self) -> object:
        return self._agent.get_new_notifs()

    def time(self, name: str, repetitions: int, batch: int) -> float:
        """Return the median of the seconds that a method takes, called ``batch`` times between looks at the clock."""
        call: Callable[[], object] = getattr(self, name)
        times = []
        for _ in range(WARMUP + repetitions):
            began = time.perf_counter()
            for _ in range(batch):
                result = call()
            times.append((time.perf_counter() - began) / batch)
            del result
        return statistics.median(times[WARMUP:])

    def close(self) -> None:
        """Nothing to be done: the process ends."""


CALLS = [
    ("check_xfer_state", "check", BATCH, "≤ 1.5 us"),
    ("get_new_notifs, none", "listen", BATCH, "≤ 1.5 us"),
    (f"get_xfer_descs {COUNT:,} × 3", "describe", 1, "≤ 1"),
    (f"prep_xfer_dlist {COUNT:,}", "prepare", 1, ""),
    (f"make_prepped_xfer {COUNT:,}, shuffled", "make", 1, "≤ 1"),
    (f"initialize_xfer {COUNT:,}", "initialize", 1, ""),
]
"""Name, method, how often between looks at the clock, goal."""


def measure(run: Run, side: str) -> Iterator[Measurement]:
    """Call each, in a process of its own."""
    with Process(Caller, PACKAGES[side]) as caller:
        for name, method, batch, goal in CALLS:
            seconds = caller.call("time", method, run.repeat(100), batch)
            yield Measurement(f"API: {name}", "us", seconds * 1e6, goal)
