"""The package under test, which the program's first argument names; what records its answers; an agent's memory."""

from __future__ import annotations

import importlib
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SIZE = 1 << 20
PATIENCE = 10.0

package = sys.argv[1]
api: Any = importlib.import_module(f"{package}._api")
low: Any = importlib.import_module(f"{package}._bindings")
utils: Any = importlib.import_module(f"{package}._utils")

said: dict[str, dict[str, str]] = {}
"""What each scenario gave, step by step; the last is the one that runs."""


def say(step: str, call: Callable[..., object], *arguments: object) -> Any:
    """Record what a call gives, and return it."""
    steps = said[next(reversed(said))]
    assert step not in steps, step
    try:
        value = call(*arguments)
    except Exception as error:
        steps[step] = f"!{type(error).__name__}"
        return None
    is_plain = isinstance(value, str | bytes | int | float | tuple | list | dict | set | type(None))
    steps[step] = repr(value) if is_plain else type(value).__name__
    return value


def until(call: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Call again until it gives something."""
    end = time.monotonic() + patience
    value = call()
    while not value and time.monotonic() < end:
        time.sleep(0.005)
        value = call()
    return value


class Memory:
    """Some registered memory."""

    def __init__(self, agent: Any, fill: int = 0) -> None:
        self.agent = agent
        self.bytes: NDArray[np.uint8] = np.full(SIZE, fill, np.uint8)
        self.base = self.bytes.ctypes.data
        self.descs = agent.register_memory([(self.base, SIZE, 0, "")], "DRAM")

    def blocks(self, count: int = 1, length: int = 64, step: int = 128, at: int = 0) -> Any:
        return self.agent.get_xfer_descs(
            [(self.base + at + number * step, length, 0) for number in range(count)], "DRAM"
        )

    def strided(self, *rows: tuple[int, int, int, int]) -> NDArray[np.uint64]:
        """Rows of (offset, length, stride, count)."""
        return np.array([(self.base + at, size, 0, stride, count) for at, size, stride, count in rows], np.uint64)
