"""The CMA backend: DRAM to DRAM between processes of one host, with ``process_vm_readv`` and ``process_vm_writev``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import numpy as np

from trunkline.backend.contract import Capabilities, ConnectionInfo, Cost, Posting
from trunkline.backend.plugins.cma.greeting import Greeting, encode_greeting, encode_info, socket_name
from trunkline.backend.plugins.cma.peer import CmaPeer
from trunkline.errors import BackendError, BackendUnavailableError, MemoryRegistrationError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.model import RemoteKeys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trunkline.backend.contract import BackendPeer, Request, Slots


class CmaBackend:
    """Lets the kernel copy straight between two processes of one user: no registration, no keys, no help of the target.

    The target only greets those who connect to its socket, from ``run``. A posting is cut into chunks; the posting
    thread, those that wait for it and the one in ``run`` copy them side by side, without the GIL. A small one ends
    within ``post``.

    Args:
        agent_name: The agent's name: the target says it to those who connect.
        connections: How many other agents may have this one loaded at the same time; more use another backend.

    Raises:
        BackendUnavailableError: It can't be used here; says why.
    """

    name = "CMA"
    capabilities = Capabilities(
        frozenset({MemoryKind.DRAM}),
        frozenset({MemoryKind.DRAM}),
        progress=True,
        keyless=True,
        cost=Cost(start=2e-6, row=0.8e-6, rate=15e9),
    )

    def __init__(self, agent_name: str, *, connections: int = 1024) -> None:
        if sys.platform != "linux":
            raise BackendUnavailableError(f"cross-memory attach is Linux's; this is {sys.platform}")
        try:
            from trunkline.backend.plugins.cma._native import Engine
        except ImportError as error:
            raise BackendUnavailableError(
                f"Trunkline's native module for cross-memory attach could not be imported ({error}); it is built when "
                "Trunkline is installed: reinstall with a C compiler "
                "(pip install --force-reinstall --no-deps trunkline)",
            ) from error
        self._agent_name = agent_name
        self._engine = Engine(agent_name, connections=connections)
        key = os.urandom(16)
        self._info = encode_info(key)
        greeting = Greeting(self._engine.nonce_address, self._engine.nonce, agent_name)
        self._engine.listen(socket_name(key), encode_greeting(greeting))

    def register(self, kind: MemoryKind, segments: NDArray[np.uint64], names: Sequence[str] = ()) -> Slots:  # noqa: ARG002  memory has none
        """Check N×3 segments (address, length, device); nothing is kept of them. Raises MemoryRegistrationError."""
        self._engine.check()
        if kind is not MemoryKind.DRAM:
            raise MemoryRegistrationError(
                f"agent {self._agent_name!r}: cross-memory attach can't register {kind.name} memory (only DRAM)",
                agent=self._agent_name,
                kind=kind.name,
            )
        address, length = segments[:, 0], segments[:, 1]
        bad = np.flatnonzero((address == 0) | (length == 0) | (address + length < address))
        if len(bad):
            row = int(bad[0])
            raise MemoryRegistrationError(
                f"agent {self._agent_name!r}: segment {row} of {len(segments)} ({int(length[row])} bytes at "
                f"{int(address[row]):#x}) is not memory; none was registered",
                agent=self._agent_name,
                row=row,
            )
        return np.zeros(len(segments), np.int32)

    def deregister(self, slots: Slots) -> None:  # noqa: ARG002  nothing is kept
        """Nothing is kept of segments."""
        self._engine.check()

    def remote_keys(self, slots: Slots) -> RemoteKeys:
        """Return as many empty keys: none are needed."""
        return RemoteKeys(b"", np.zeros(len(slots), np.int64), np.zeros(len(slots), np.int64))

    def connection_info(self) -> ConnectionInfo:
        """Return the name of the socket, encoded."""
        self._engine.check()
        return self._info

    def load_peer(self, name: str, info: ConnectionInfo) -> CmaPeer:
        """Take a peer's connection info and connect to its socket, if that is here; waits for nothing.

        Raises:
            MetadataDecodeError: It is not one that this backend makes.
        """
        return CmaPeer(name, self._engine, info)

    def prepare(self, posting: Posting, peer: BackendPeer | None) -> Request:
        """Bind a posting to a peer.

        Raises:
            BackendError: There is no peer: within one agent the loopback backend moves bytes.
        """
        if not isinstance(peer, CmaPeer):
            raise BackendError("CMA moves bytes between agents; within one agent use the loopback backend")
        return peer.link.prepare(posting)

    def progress(self) -> bool:
        """Copy one chunk, greet who has connected; return whether finished requests can be taken."""
        return self._engine.progress()

    def run(self, until: float) -> None:
        """Copy, greet and watch for peers' ends, asleep while idle, until there is news, ``wake`` or ``until``."""
        self._engine.run(until)

    def wake(self) -> None:
        """Make ``run`` return soon."""
        self._engine.wake()

    def take_finished(self) -> list[Request]:
        """Return the requests that became quiet, except those that a thread is just waiting for."""
        return [*self._engine.take_finished()]

    def take_failed_peers(self) -> list[BackendPeer]:
        """Return the peers that hung up since the last call."""
        return self._engine.take_failed()

    @property
    def connections(self) -> int:
        """How many other agents keep a connection to this one."""
        return self._engine.connections

    def close(self) -> None:
        """Hang up on everybody; requests in flight become FAILED once what is being copied has ended. Idempotent."""
        self._engine.close()

    def __repr__(self) -> str:
        return f"<CmaBackend of {self._agent_name!r}{': closed' if self._engine.is_closed else ''}>"
