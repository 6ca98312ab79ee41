"""Waiting in tests: until something holds, or a process stands; bounded for busy machines, with no expected time."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

PATIENCE = 60.0
"""Seconds after which a test gives up; never an expected time."""


def eventually(condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Return once ``condition()`` is true; fail the test after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.001)


def stop_process(process: subprocess.Popen[Any]) -> None:
    """Stop a process of ours (SIGSTOP), and return when all its threads stand still, which takes a moment."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
