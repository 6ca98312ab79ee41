"""A process that offers memory by cross-memory attach, for tests that kill, stop and measure one.

``python -m trunkline.testing.cma_target SIZE NAME`` prints one line of JSON (connection info, address), then answers
commands on standard input, one line each, and ends with its input:

    allocate SIZE   more memory: its address
    count VALUE     how many bytes of the first have it
    fork, clone     a child that lives on, made by the C library or past it: its pid
    unmap, exec     its memory; another program in the same process
    close           the backend
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from trunkline.backend.contract import ConnectionInfo
from trunkline.backend.plugins.cma import CmaBackend
from trunkline.errors import ClosedError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.waiting import stop_process

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from trunkline.backend.plugins.cma import CmaPeer

_ANSWER_TIMEOUT = 60.0
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}


class CmaTarget:
    """Starts the process and talks to it; a context manager that ends it.

    Attributes:
        pid: The process.
        address: Where its memory starts.
        info: Its connection info.

    Args:
        size: Bytes it offers; all are 0 at first.
        name: Its agent's name.
    """

    def __init__(self, size: int, name: str = "target") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(size), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._lock = threading.Lock()  # one command and its answer at a time
        self.pid = self._process.pid
        info, self.address = self._read()
        self.info = ConnectionInfo(bytes.fromhex(info))
        self._children: list[int] = []

    def load_into(self, backend: CmaBackend, name: str = "target") -> CmaPeer:
        """Load it as a peer."""
        return backend.load_peer(name, self.info)

    def ask(self, command: str) -> Any:
        """Have it do one of the commands; return its answer."""
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
            answer = self._read()
        if command in ("fork", "clone"):
            self._children.append(answer)
        return answer

    def place(self, data: NDArray[np.uint8]) -> TargetMemory:
        """Have it hold some bytes in memory of its own."""
        memory = TargetMemory(self.pid, self.ask(f"allocate {data.nbytes}"), data.nbytes)
        memory.write(data)
        return memory

    def kill(self) -> None:
        """End it (SIGKILL), and return when it is gone."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it (SIGSTOP), and return when all its threads stand still."""
        stop_process(self._process)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            os.kill(child, signal.SIGKILL)
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _read(self) -> Any:
        stream = self._process.stdout
        assert stream is not None
        watchdog = threading.Timer(_ANSWER_TIMEOUT, self._process.kill)
        watchdog.start()
        try:
            line = stream.readline()
            if not line:
                raise RuntimeError(f"the target ended with {self._process.wait()} or did not answer")
            return json.loads(line)
        finally:
            watchdog.cancel()


class TargetMemory:
    """Memory of another process as the far side of a test's transfers, read and written through ``/proc``."""

    kind = MemoryKind.DRAM
    device = 0
    name = ""

    def __init__(self, pid: int, address: int, nbytes: int) -> None:
        self._path = Path(f"/proc/{pid}/mem")
        self.address = address
        self.nbytes = nbytes

    def read(self) -> NDArray[np.uint8]:
        """Return what it holds now."""
        with self._path.open("rb") as file:
            file.seek(self.address)
            return np.frombuffer(file.read(self.nbytes), np.uint8)

    def write(self, data: NDArray[np.uint8]) -> None:
        """Have it hold other bytes."""
        with self._path.open("r+b", buffering=0) as file:
            file.seek(self.address)
            view = data.data
            while view:
                view = view[file.write(view) :]


def main(size: int, name: str) -> None:
    """Offer ``size`` bytes until standard input ends."""
    backend = CmaBackend(name)
    array = np.frombuffer(mmap.mmap(-1, size), np.uint8)
    address = array.ctypes.data
    more: list[NDArray[np.uint8]] = []

    def drive() -> None:
        try:
            while True:
                backend.run(time.monotonic() + 60)
        except ClosedError:
            pass

    threading.Thread(target=drive, name="target", daemon=True).start()
    _answer([backend.connection_info().hex(), address])
    for line in sys.stdin:
        match line.split():
            case ["count", value]:
                _answer(int(np.count_nonzero(array == int(value))))
            case ["allocate", value]:
                more.append(np.zeros(int(value), np.uint8))
                _answer(more[-1].ctypes.data)
            case ["fork"]:
                child = os.fork()
                if not child:
                    _live_on()
                _answer(child)
            case ["clone"]:
                child = ctypes.CDLL(None).syscall(_SYS_CLONE[platform.machine()], int(signal.SIGCHLD), 0, 0, 0, 0)
                if not child:
                    _live_on()
                _answer(child)
            case ["unmap"]:
                ctypes.CDLL(None).munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
                _answer(None)
            case ["exec"]:
                _answer(None)
                os.execv(sys.executable, [sys.executable, "-c", "import sys; sys.stdin.read()"])  # noqa: S606  that is the point
            case ["close"]:
                backend.close()
                _answer(None)


def _live_on() -> None:
    while True:
        signal.pause()


def _answer(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
