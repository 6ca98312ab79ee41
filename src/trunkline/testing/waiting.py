"""Waiting in tests: until something holds, with an upper bound for busy machines and no expected time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 60.0
"""Seconds after which a test gives up; never an expected time."""


def eventually(condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Return once ``condition()`` is true; fail the test after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.001)
