"""A stand-in for NVIDIA's agent: it loads and refuses as version 1.5.1 does, and writes down what it was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.memory.kind import MemoryKind
from trunkline.metadata.codec import decode, encode
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata

if TYPE_CHECKING:
    from collections.abc import Callable


class nixlNotAllowedError(Exception):  # noqa: N801 - NIXL's name
    pass


def metadata(name: str, ranges: dict[int, bytes], connection: bytes | None = b"address") -> bytes:
    """Return metadata that offers 4 KiB at each address under its key."""
    connections = {} if connection is None else {"UCX": connection}
    rows = np.array([[address, 4096, 0] for address in ranges], np.uint64)
    section = SectionMetadata("UCX", MemoryKind.DRAM, rows, RemoteKeys.of(list(ranges.values())))
    return encode(AgentMetadata(name, connections, (section,) if ranges else ()))


class FakeAgent:
    """Attributes are those of ``nixl_agent``, and what tests look at.

    Attributes:
        own: Its registered memory: address → key.
        connection: How it is reached; new in each run.
        loaded: What it can reach of each peer: address → key.
        asked: The calls that changed a peer, as ``add NAME`` or ``remove NAME``.
        refuses: Called with a peer's name before it is loaded; may raise.
    """

    def __init__(self, name: str, *, connection: bytes = b"address") -> None:
        self.name = name
        self.backends = {"UCX": 1}
        self.own: dict[int, bytes] = {0x1000: b"key"}
        self.connection = connection
        self.loaded: dict[str, dict[int, bytes]] = {}
        self.asked: list[str] = []
        self.refuses: Callable[[str], None] = lambda name: None
        self._connections: dict[str, bytes] = {}

    def get_agent_metadata(self) -> bytes:
        return metadata(self.name, self.own, self.connection)

    def get_partial_agent_metadata(self, descs: Any, inc_conn_info: bool, backends: list[str]) -> bytes:
        assert not backends or backends == ["UCX"]
        ranges = {address: self.own[address] for address in descs}
        return metadata(self.name, ranges, self.connection if inc_conn_info else None)

    def add_remote_agent(self, metadata: bytes) -> bytes:
        decoded = decode(metadata)
        name = decoded.agent
        self.refuses(name)
        self.asked.append(f"add {name}")
        connection = decoded.connections.get("UCX", self._connections.get(name))
        if connection is None or self._connections.get(name, connection) != connection:
            raise nixlNotAllowedError("NIXL_ERR_NOT_ALLOWED")
        self._connections[name] = connection
        known = self.loaded.setdefault(name, {})
        for section in decoded.sections:
            for (address, _, _), key in zip(section.segments.tolist(), section.keys, strict=True):
                if known.setdefault(address, key) != key:
                    raise nixlNotAllowedError("NIXL_ERR_NOT_ALLOWED")
        return name.encode()

    def remove_remote_agent(self, agent: str) -> None:
        self.asked.append(f"remove {agent}")
        self.loaded.pop(agent, None)
        self._connections.pop(agent, None)
