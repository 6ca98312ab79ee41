"""A process that offers memory over UCX, for tests that kill, stop and measure one.

``python -m trunkline.testing.ucx_target SIZE`` prints one line of JSON (address, segment, key), then answers commands
on standard input, one line each: ``count VALUE`` (how many bytes have it), ``notifications``. It ends with its input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from trunkline.backend.contract import ConnectionInfo
from trunkline.backend.plugins.ucx import UcxBackend
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.model import RemoteKeys
from trunkline.testing.waiting import stop_process

if TYPE_CHECKING:
    import signal
    from types import TracebackType

    from trunkline.backend.contract import Slots
    from trunkline.backend.plugins.ucx import UcxPeer

_ANSWER_TIMEOUT = 60.0


class UcxTarget:
    """Starts the process and talks to it; a context manager that ends it.

    Attributes:
        pid: The process.
        segment: uint64, shape (1, 3): its memory.

    Args:
        size: Bytes it offers.
        environment: Variables to set in it (``UCX_TLS``).
    """

    def __init__(self, size: int, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        )
        self.pid = self._process.pid
        hello = self._read()
        self._info = ConnectionInfo(bytes.fromhex(hello["address"]))
        self._key = RemoteKeys.of([bytes.fromhex(hello["key"])])
        self.segment = np.array([hello["segment"]], np.uint64)

    def load_into(self, backend: UcxBackend) -> tuple[UcxPeer, Slots]:
        """Load it as a peer with its one segment."""
        peer = backend.load_peer("target", self._info)
        return peer, peer.load_segments(MemoryKind.DRAM, self.segment, self._key)

    def count(self, value: int) -> int:
        """Return how many bytes of its memory have this value."""
        return int(self._ask(f"count {value}"))

    def notifications(self) -> list[tuple[bytes, bool]]:
        """Take the notifications that it got."""
        return [(bytes.fromhex(payload), failure) for payload, failure in self._ask("notifications")]

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal: SIGKILL, SIGCONT."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Stop it (SIGSTOP), and return when all its threads stand still."""
        stop_process(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _ask(self, command: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        """Read one answer; UCX prints its own lines between them."""
        stream: IO[str] | None = self._process.stdout
        assert stream is not None
        watchdog = threading.Timer(_ANSWER_TIMEOUT, self._process.kill)
        watchdog.start()
        try:
            for line in stream:
                if line.startswith("> "):
                    return json.loads(line[2:])
            raise RuntimeError(f"the target ended with {self._process.wait()} or did not answer")
        finally:
            watchdog.cancel()


def main(size: int) -> None:
    """Offer ``size`` bytes until standard input ends."""
    backend = UcxBackend("target", devices="lo")
    memory = np.zeros(size, np.uint8)
    segment = [memory.ctypes.data, size, 0]
    slots = backend.register(MemoryKind.DRAM, np.array([segment], np.uint64))
    notifications: list[tuple[str, bool]] = []
    ended = threading.Event()

    def drive() -> None:
        while not ended.is_set():
            backend.run(time.monotonic() + 60)
            notifications.extend((payload.hex(), failure) for payload, failure in backend.take_notifications()[0])
            backend.take_failed_peers()

    thread = threading.Thread(target=drive, name="target")
    thread.start()
    _answer(
        {"address": backend.connection_info().hex(), "segment": segment, "key": backend.remote_keys(slots)[0].hex()}
    )
    for line in sys.stdin:
        match line.split():
            case ["count", value]:
                _answer(int(np.count_nonzero(memory == int(value))))
            case ["notifications"]:
                taken = notifications.copy()
                del notifications[: len(taken)]
                _answer(taken)
    ended.set()
    backend.wake()
    thread.join()
    backend.close()


def _answer(value: object) -> None:
    sys.stdout.write(f"\n> {json.dumps(value)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
