"""A real NIXL agent in a process of its own, driven by JSON lines: ``[method, arguments]`` in, the answer out.

Argument: the agent's name. Its first line is ``"open"``, or ``["unavailable", why]`` where the wheel can't be imported.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PATIENCE = 20.0
PORT = "TEST_LISTEN_PORT"
"""The environment variable that says where the agent listens, if it does."""
MEMORY = "TEST_MEMORY"
"""The environment variable that says how many bytes of memory it registers."""
SIZE = 9 << 20
"""How many those are if it says nothing."""


@functools.cache
def noise(seed: int, size: int = SIZE) -> NDArray[np.uint8]:
    """Return bytes that fill it; tests make the same ones."""
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


class NixlProcess:
    """The methods that tests call. Bytes travel as hexadecimal digits.

    Args:
        name: The agent's name.
        wheel: NIXL's Python module.
    """

    def __init__(self, name: str, wheel: Any) -> None:
        listening = {"enable_listen_thread": True, "listen_port": int(port)} if (port := os.environ.get(PORT)) else {}
        self._agent = wheel.nixl_agent(name, wheel.nixl_agent_config(backends=["UCX"], **listening))
        self._size = int(os.environ.get(MEMORY, SIZE))
        self._memory = np.zeros(self._size, np.uint8)
        self._agent.register_memory([(self._memory.ctypes.data, self._size, 0, "")], "DRAM")
        self._arrived: list[tuple[str, str]] = []

    def address(self) -> int:
        return int(self._memory.ctypes.data)

    def fill(self, seed: int, size: int | None = None) -> None:
        """Fill its memory, or as many of the first bytes."""
        self._memory[:size] = noise(seed, size or self._size)

    def digest(self, size: int | None = None) -> str:
        """Return what identifies all of its memory, or as many of the first bytes."""
        return hashlib.sha256(self._memory[:size].data).hexdigest()

    def metadata(self) -> str:
        return bytes(self._agent.get_agent_metadata()).hex()

    def load(self, metadata: str) -> str:
        return _text(self._agent.add_remote_agent(bytes.fromhex(metadata)))

    def transfer(
        self, operation: str, local: list[list[int]], remote: list[list[int]], peer: str, notification: str
    ) -> str:
        """Run one transfer to its end and return its last state."""
        agent = self._agent
        handle = agent.initialize_xfer(
            operation,
            agent.get_xfer_descs(np.array(local, np.uint64), "DRAM"),
            agent.get_xfer_descs(np.array(remote, np.uint64), "DRAM"),
            peer,
            bytes.fromhex(notification),
        )
        states = [agent.transfer(handle)]

        def has_ended() -> bool:
            if states[-1] == "PROC":
                states.append(agent.check_xfer_state(handle))
            return bool(states[-1] != "PROC")

        wait_for(has_ended)
        agent.release_xfer_handle(handle)
        return str(states[-1])

    def notify(self, peer: str, payload: str) -> None:
        self._agent.send_notif(peer, bytes.fromhex(payload))

    def notification(self) -> tuple[str, str] | None:
        """Return the next one as (sender, payload), waiting for it; None if none comes."""

        def has_arrived() -> bool:
            for sender, payloads in self._agent.get_new_notifs().items():
                self._arrived.extend((_text(sender), payload.hex()) for payload in payloads)
            return bool(self._arrived)

        return self._arrived.pop(0) if wait_for(has_arrived) else None

    def publish(self) -> None:
        self._agent.send_local_metadata()

    def send(self, host: str, port: int) -> None:
        self._agent.send_local_metadata(host, port)

    def send_part(self, host: str, port: int) -> None:
        """Send how it is reached, and none of its memory."""
        import nixl_cu12._bindings as low

        empty = low.nixlRegDList(low.DRAM_SEG)
        self._agent.send_partial_agent_metadata(empty, True, ["UCX"], host, port)

    def withdraw_from(self, host: str, port: int) -> None:
        self._agent.invalidate_local_metadata(host, port)

    def fetch_from(self, name: str, host: str, port: int) -> bool:
        """Return whether an agent was loaded in time from where it listens."""
        self._agent.fetch_remote_metadata(name, host, port)
        return self.knows(name)

    def knows(self, name: str) -> bool:
        """Return whether an agent was loaded in time."""
        return wait_for(lambda: bool(self._agent.check_remote_metadata(name)))

    def extend(self) -> int:
        """Register as much memory again, filled with sevens."""
        self._more = np.full(self._size, 7, np.uint8)
        self._agent.register_memory([(self._more.ctypes.data, self._size, 0, "")], "DRAM")
        return int(self._more.ctypes.data)

    def withdraw(self) -> None:
        self._agent.invalidate_local_metadata()

    def fetch(self, name: str) -> bool:
        """Return whether an agent was found and loaded in time."""
        self._agent.fetch_remote_metadata(name)
        return self.knows(name)

    def close(self) -> None:
        """Nothing: its keys stay, as NIXL leaves them."""

    def forgets(self, name: str) -> bool:
        """Return whether it forgot an agent in time."""
        return wait_for(lambda: not self._agent.check_remote_metadata(name))


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def wait_for(condition: Callable[[], bool]) -> bool:
    """Return whether it became true in time.

    NIXL offers no way to wait, so ask: at once while it may be quick, then less often.
    """
    began = time.monotonic()
    while not condition():
        elapsed = time.monotonic() - began
        if elapsed > PATIENCE:
            return False
        time.sleep(0 if elapsed < 0.01 else 0.005)
    return True


class Driven(Protocol):
    """What is driven, by its methods' names."""

    def close(self) -> None: ...


def serve(make: Callable[[], Driven]) -> None:
    """Do as told until there is nobody left to tell."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # NIXL logs to standard output

    def answer(value: object) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        process = make()
    except ImportError as error:
        answer(["unavailable", str(error)])
        return
    answer("open")
    for line in sys.stdin:
        method, arguments = json.loads(line)
        answer(getattr(process, method)(*arguments))
    process.close()


if __name__ == "__main__":
    serve(lambda: NixlProcess(sys.argv[1], importlib.import_module("nixl_cu12._api")))
