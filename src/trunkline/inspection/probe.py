"""Whether an agent answers: the store's side of it, and a real read of its memory. Publishes nothing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trunkline.agent.agent import Agent
from trunkline.clock import Deadline
from trunkline.directory.directory import Directory
from trunkline.errors import TrunklineError
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.key import MetadataKey
from trunkline.store.registry import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trunkline.agent.peer import Peer
    from trunkline.store.contract import Store

READ_SIZE = 8
"""Bytes that a probe reads."""

_READABLE = (MemoryKind.DRAM, MemoryKind.VRAM)


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of probing an agent.

    Attributes:
        name: The agent.
        is_nixl: Whether it is one of NIXL's own.
        incarnation: Which life of it; empty for NIXL's own.
        host: Where it runs; empty where that is not said.
        pid: Its process there; 0 where that is not said.
        control: Seconds that each look at its record's key in the store took.
        connect: Seconds from loading its metadata to the end of the first read; None if there was none.
        reads: Seconds that each further read of its memory took.
        size: Bytes that each of them read; 0 if it offers no memory that could be read: then only a connection was
            made.
        kind: Which kind of memory was read; empty for none.
        transports: What carried it, as ``transport/device``.
        error: Why the data path does not work; None if it does.
    """

    name: str
    is_nixl: bool
    incarnation: str
    host: str
    pid: int
    control: tuple[float, ...]
    connect: float | None = None
    reads: tuple[float, ...] = ()
    size: int = 0
    kind: str = ""
    transports: tuple[str, ...] = ()
    error: TrunklineError | None = None


@dataclass(frozen=True, slots=True)
class DataPath:
    """The part of a :class:`Probe` that is about memory."""

    connect: float | None = None
    reads: tuple[float, ...] = ()
    size: int = 0
    kind: str = ""
    transports: tuple[str, ...] = ()
    error: TrunklineError | None = None


def probe(
    store: Store, namespace: str, name: str, *, count: int = 5, devices: str | None = None, timeout: float = 10.0
) -> Probe:
    """Read an agent's key in the store, and then 8 bytes of its memory, several times each.

    The reading is done by an agent of its own that lives in no directory but this process's, so the store is not
    written to and nobody sees it; the agent that is probed learns of a connection only.

    Args:
        store: Where.
        namespace: The namespace.
        name: The agent.
        count: How often.
        devices: Network devices that UCX may use.
        timeout: Seconds for the store, and again for the data path.

    Raises:
        AgentNotFoundError: Nothing is published under that name.
        ConfigurationError: No agent can be called that.
        StoreError: The store failed.
    """
    deadline = Deadline(timeout)
    found = Directory(store, namespace=namespace).fetch(name, timeout=timeout)
    key = MetadataKey(namespace, name).presence
    control = tuple(_measure(lambda: store.get(key, timeout=deadline.remaining())) for _ in range(count))
    path = probe_metadata(found.metadata, count=count, devices=devices, timeout=timeout)
    presence = found.presence
    return Probe(
        name=name,
        is_nixl=presence is None,
        incarnation="" if presence is None else presence.incarnation,
        host="" if presence is None else presence.process.host,
        pid=0 if presence is None else presence.process.pid,
        control=control,
        connect=path.connect,
        reads=path.reads,
        size=path.size,
        kind=path.kind,
        transports=path.transports,
        error=path.error,
    )


def probe_metadata(metadata: bytes, *, count: int, devices: str | None, timeout: float) -> DataPath:
    """Read the memory that metadata describes; an error is part of what comes back."""
    deadline = Deadline(timeout)
    identity = os.urandom(8).hex()
    transports: tuple[str, ...] = ()
    try:
        with (
            open_store(f"memory://probe-{identity}") as nowhere,  # else NIXL_ETCD_ENDPOINTS would count
            Agent(f"probe-{identity}", store=nowhere, devices=devices, timeout=timeout) as agent,
        ):
            own = np.zeros(READ_SIZE, np.uint8)
            agent.register(own)
            began = time.monotonic()
            peer = agent.load_peer(metadata)
            read, kind, size = _prepare(agent, own, peer, deadline)
            read()
            connect = time.monotonic() - began
            transports = peer.transports
            reads = tuple(_measure(read) for _ in range(count)) if size else ()
            return DataPath(connect, reads, size, kind, peer.transports)
    except TrunklineError as error:
        return DataPath(transports=transports, error=error)


def _prepare(
    agent: Agent, own: NDArray[np.uint8], peer: Peer, deadline: Deadline
) -> tuple[Callable[[], object], str, int]:
    """Return what makes contact once, and the kind and size of the memory that it reads."""
    for kind in _READABLE:
        segments = [table.segments for (_, its), table in peer.target.section.tables.items() if its is kind]
        for table in segments:
            rows = np.flatnonzero(table[:, 1] >= READ_SIZE)
            if len(rows):
                address, _, device = table[rows[0]].tolist()
                remote = DescriptorList.of(kind, [(address, READ_SIZE, device)])
                local = DescriptorList.of(MemoryKind.DRAM, [(own.ctypes.data, READ_SIZE, 0)])

                def read(remote: DescriptorList = remote, local: DescriptorList = local) -> None:
                    remaining = deadline.remaining()
                    agent.read(remote, into=local, peer=peer, deadline=remaining).wait(remaining)

                return read, kind.name, READ_SIZE
    return lambda: peer.connect(deadline.remaining()), "", 0


def _measure(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began
