"""The UCX backend: one worker, its memory, its peers."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trunkline.backend.contract import Capabilities, ConnectionInfo, Cost, Posting
from trunkline.backend.plugins.ucx.address import check_worker_address, read_layout
from trunkline.backend.plugins.ucx.library import load_native
from trunkline.backend.plugins.ucx.peer import UcxPeer
from trunkline.backend.plugins.ucx.remote_key import MEMORY_TYPES
from trunkline.config import Settings
from trunkline.errors import (
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    MemoryRegistrationError,
    MetadataDecodeError,
)
from trunkline.metadata.model import RemoteKeys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trunkline.backend.contract import BackendPeer, Request, Slots
    from trunkline.backend.plugins.ucx.address import AddressLayout
    from trunkline.memory.kind import MemoryKind

# What NIXL sets (NIXL-FORMATS section 5): peers choose the same transports only if both sides agree. As with
# NIXL, the user's UCX_* environment wins.
_CONFIG = {
    "RNDV_THRESH": "inf",
    "MAX_RMA_RAILS": "2",
    # UCX 1.22 takes 16 TCP events at once, and what the first brings may end the connection that a later one is for.
    "TCP_MAX_POLL": "1",
    # If UCX 1.22 waits for the handshake, and the peer's listener goes away meanwhile (a peer that is probed while it
    # ends), it aborts in uct_tcp_ep_t_cleanup. Not waiting, it reports a failed connection; and nobody who needs the
    # worker waits for a far host.
    "TCP_CONN_NB": "y",
    # Between processes of one host UCX 1.22 copies 512 KiB at a time. Copying 1 MiB at once takes 4 % less time.
    "CMA_SEG_SIZE": "1m",
}


_COST = Cost(start=2e-6, row=3.5e-6, rate=9e9)
"""Between two processes of one host, as measured there; other ways to other hosts are not compared with it."""


def _check_devices(names: Sequence[str]) -> None:
    """Refuse plain device names that are not there: UCX only prints a warning, and then reaches nobody."""
    for name in names:
        device = name.partition(":")[0]
        is_plain = re.fullmatch(r"[\w.-]+", device) is not None and device != "all"
        if is_plain and not any(Path("/sys/class", kind, device).exists() for kind in ("net", "infiniband")):
            there = sorted(path.name for path in Path("/sys/class").glob("net/*")) + sorted(
                path.name for path in Path("/sys/class").glob("infiniband/*")
            )
            raise ConfigurationError(
                f"devices={name!r}: there is no such network device; here are {', '.join(there)}", device=name
            )


def _transports_without_cma() -> str:
    """Return a ``UCX_TLS`` that leaves cross-memory attach out.

    Raises:
        ConfigurationError: The environment asks for it.
    """
    wanted = os.environ.get("UCX_TLS")
    if wanted is None:
        return "^cma"
    named = set(wanted.lstrip("^").split(","))
    is_left_out = "cma" in named if wanted.startswith("^") else not named & {"cma", "sm", "shm", "shared_memory", "all"}
    if not is_left_out:
        raise ConfigurationError(
            f"TRUNKLINE_CMA=strict, but UCX_TLS={wanted} lets UCX use cross-memory attach: unset one of them",
            variable="UCX_TLS",
        )
    return wanted


class UcxBackend:
    """Moves bytes between processes and hosts over whatever UCX finds: InfiniBand, TCP, cross-memory attach.

    Args:
        agent_name: For messages and UCX's own logs.
        devices: Network devices to use, as in ``UCX_NET_DEVICES`` (``"mlx5_0:1"``, ``["lo"]``); default: that
            variable, else all. TCP listens on each of them, without authentication.
        library: Path of another ``libucp.so``; default ``$TRUNKLINE_UCX_LIBRARY``, else the ``libucx`` package.
        notification_count: How many notifications wait to be taken before more are dropped.
        notification_bytes: Likewise, their payloads' bytes in all.

    Raises:
        BackendUnavailableError: UCX is missing or refuses; the message says what to do.
        ConfigurationError: A device is not there.
    """

    name = "UCX"

    def __init__(
        self,
        agent_name: str,
        *,
        devices: str | Sequence[str] | None = None,
        library: str | os.PathLike[str] | None = None,
        notification_count: int = 65_536,
        notification_bytes: int = 64 << 20,
    ) -> None:
        load_native(library)
        from trunkline.backend.plugins.ucx._native import Worker

        config = {key: value for key, value in _CONFIG.items() if f"UCX_{key}" not in os.environ}
        if devices is not None:
            names = devices.split(",") if isinstance(devices, str) else devices
            _check_devices(names)
            config["NET_DEVICES"] = ",".join(names)
        if Settings.from_environment().cma == "strict":
            config["TLS"] = _transports_without_cma()
        self._worker = Worker(
            agent_name,
            config,
            notification_count=notification_count,
            notification_bytes=notification_bytes,
        )
        self._layout = self._own_layout()
        self._lock = threading.Lock()  # registering against close
        self._kinds = frozenset(
            kind for kind, memory_type in MEMORY_TYPES.items() if self._worker.memory_types >> memory_type & 1
        )
        scratch = np.zeros(8, np.uint64)
        slots = self._worker.register(np.array([[scratch.ctypes.data, scratch.nbytes, 0]], np.uint64), 0)
        self._scratch = (int(slots[0]), scratch)

    def _own_layout(self) -> AddressLayout:
        try:
            return read_layout(self._worker.name, self._worker.address())
        except MetadataDecodeError as error:
            self._worker.close()
            raise BackendUnavailableError(
                f"this UCX writes worker addresses that Trunkline can't check ({error}); unset UCX_UNIFIED_MODE, "
                "or use a UCX from 1.21 to 1.23",
            ) from error

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self._kinds, self._kinds, notifications=True, progress=True, cost=_COST)

    def register(self, kind: MemoryKind, segments: NDArray[np.uint64], names: Sequence[str] = ()) -> Slots:  # noqa: ARG002  memory has none
        """Register N×3 segments (address, length, device); all or none.

        Raises:
            MemoryRegistrationError: UCX refused one; none is registered.
        """
        if kind not in self._kinds:
            known = ", ".join(sorted(kind.name for kind in self._kinds))
            raise MemoryRegistrationError(
                f"agent {self._worker.name!r}: this UCX can't register {kind.name} memory (only {known})",
                agent=self._worker.name,
                kind=kind.name,
            )
        with self._lock:
            return self._worker.register(np.ascontiguousarray(segments), MEMORY_TYPES[kind])

    def deregister(self, slots: Slots) -> None:
        """Forget registered segments; nothing posted uses them, here or at a peer."""
        with self._lock:
            self._worker.deregister(slots)

    def remote_keys(self, slots: Slots) -> RemoteKeys:
        """Return the keys that let peers reach these segments."""
        with self._lock:
            return RemoteKeys(*self._worker.pack_keys(slots))

    def connection_info(self) -> ConnectionInfo:
        """Return the UCX worker's address."""
        return ConnectionInfo(self._worker.address())

    def load_peer(self, name: str, info: ConnectionInfo) -> UcxPeer:
        """Take a peer's worker address; nothing is sent before the first use.

        Raises:
            MetadataDecodeError: The address is not one UCX could have made.
        """
        check_worker_address(name, info, self._layout)
        return UcxPeer(name, self._worker, info, self._scratch)

    def prepare(self, posting: Posting, peer: BackendPeer | None) -> Request:
        """Bind a posting to a peer.

        Raises:
            BackendError: There is no peer: within one agent the loopback backend moves bytes.
        """
        if not isinstance(peer, UcxPeer):
            raise BackendError("UCX moves bytes between agents; within one agent use the loopback backend")
        return peer.endpoint.prepare(posting)

    def notify(self, peer: BackendPeer, payload: bytes, *, failure: bool = False) -> Request:
        """Send a payload and return its (posted) request."""
        if not isinstance(peer, UcxPeer):
            raise BackendError("UCX notifies peers that it has loaded, not the agent itself")
        return peer.endpoint.send(payload, failure)

    def take_notifications(self) -> tuple[list[tuple[bytes, bool]], int]:
        """Return the payloads that arrived, each with its failure mark, and how many were dropped."""
        return self._worker.take_notifications()

    def progress(self) -> bool:
        """Drive the worker once, without waiting; return whether there is something to take."""
        return self._worker.progress()

    def run(self, until: float) -> None:
        """Drive the worker, asleep while idle, until there is something to take, ``wake`` or ``until``."""
        self._worker.run(until)

    def wake(self) -> None:
        """Make ``run`` return soon."""
        self._worker.wake()

    def take_finished(self) -> list[Request]:
        """Return the requests that became quiet and that nobody's ``poll`` or ``wait`` has reported."""
        return [*self._worker.take_finished()]

    def take_failed_peers(self) -> list[BackendPeer]:
        """Return the peers whose connection broke since the last call."""
        return self._worker.take_failed()

    def close(self) -> None:
        """Break all connections and free everything; requests in flight become FAILED. Idempotent."""
        with self._lock:
            self._worker.close()

    def __repr__(self) -> str:
        return f"<UcxBackend of {self._worker.name!r}{': closed' if self._worker.is_closed else ''}>"
