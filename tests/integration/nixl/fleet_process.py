"""A member of a mixed fleet in a process of its own, driven as ``nixl_process.py`` is, whatever its kind.

Arguments: the agent's name; its kind: ``Agent``, or the package whose NIXL API it uses. Store and namespace are in the
environment, as NIXL has them.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from typing import TYPE_CHECKING

import numpy as np
from tests.integration.nixl.nixl_process import MEMORY, PATIENCE, Driven, NixlProcess, noise, serve, wait_for

from trunkline import Agent, DescriptorList, MemoryKind
from trunkline.errors import DeadlineError, PeerGoneError, UnknownPeerError
from trunkline.metadata.key import DEFAULT_LABEL, NIXL_NAMESPACE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline import LocalTensor, Peer


class ApiMember(NixlProcess):
    """One with NIXL's API: NVIDIA's, or ours."""

    def __init__(self, name: str, package: str) -> None:
        self._low = importlib.import_module(f"{package}._bindings")
        super().__init__(name, importlib.import_module(f"{package}._api"))

    def publish_part(self, label: str, address: int | None) -> None:
        """Publish one region, or how the agent is reached."""
        if address is None:
            part = self._low.nixlRegDList(self._low.DRAM_SEG)
        else:
            part = self._agent.get_reg_descs([(address, self._size, 0, "")], "DRAM")
        self._agent.send_partial_agent_metadata(part, address is None, ["UCX"], label=label)

    def fetch(self, name: str, label: str = "") -> bool:
        self._agent.fetch_remote_metadata(name, label=label)
        return self.knows(name)

    def offers(self, name: str, rows: list[list[int]]) -> bool:
        """Return whether an agent is loaded, and offers these ranges."""
        ranges = self._agent.get_xfer_descs(np.array(rows, np.uint64), "DRAM")
        return bool(self._agent.check_remote_metadata(name, ranges))

    def gets_to_offer(self, name: str, rows: list[list[int]]) -> bool:
        """Return whether it offers them in time: NIXL loads what was fetched later."""
        return wait_for(lambda: self.offers(name, rows))


class AgentMember:
    """One of Trunkline's own; the methods are those of ``ApiMember`` that tests call."""

    def __init__(self, name: str) -> None:
        namespace = os.environ.get("NIXL_ETCD_NAMESPACE", NIXL_NAMESPACE)
        self._agent = Agent(name, namespace=namespace, timeout=PATIENCE)
        self._regions: dict[int, tuple[NDArray[np.uint8], LocalTensor]] = {}
        self._size = int(os.environ[MEMORY])
        self._register(np.zeros(self._size, np.uint8))

    def _register(self, memory: NDArray[np.uint8]) -> int:
        address = int(memory.ctypes.data)
        self._regions[address] = memory, self._agent.register(memory)
        return address

    @property
    def _memory(self) -> NDArray[np.uint8]:
        return self._regions[self.address()][0]

    def address(self) -> int:
        return next(iter(self._regions))

    def extend(self) -> int:
        return self._register(np.full(self._size, 7, np.uint8))

    def fill(self, seed: int, size: int | None = None) -> None:
        self._memory[:size] = noise(seed, size or self._size)

    def digest(self, size: int | None = None) -> str:
        return hashlib.sha256(self._memory[:size].data).hexdigest()

    def publish(self) -> None:
        self._agent.publish()

    def publish_part(self, label: str, address: int | None) -> None:
        segments = [] if address is None else [self._regions[address][1]]
        self._agent.publish(label=label, segments=segments, connection_info=address is None)

    def withdraw(self) -> None:
        self._agent.withdraw()

    def fetch(self, name: str, label: str = "") -> bool:
        return self._agent.fetch(name, label=label or DEFAULT_LABEL).gone is None

    def offers(self, name: str, rows: list[list[int]]) -> bool:
        peer = self._peer(name)
        return peer is not None and peer.offers(_ranges(rows))

    def gets_to_offer(self, name: str, rows: list[list[int]]) -> bool:
        """As ``offers``: what was fetched is loaded."""
        return self.offers(name, rows)

    def forgets(self, name: str) -> bool:
        return wait_for(lambda: self._peer(name) is None)

    def transfer(
        self, operation: str, local: list[list[int]], remote: list[list[int]], peer: str, notification: str
    ) -> str:
        near, far, its = _ranges(local), _ranges(remote), self._agent.peer(peer)
        message = bytes.fromhex(notification) or None
        if operation == "READ":
            handle = self._agent.read(far, into=near, peer=its, notify=message)
        else:
            handle = self._agent.write(near, to=far, peer=its, notify=message)
        return handle.wait().state.name

    def notify(self, peer: str, payload: str) -> None:
        self._agent.notify(self._agent.peer(peer), bytes.fromhex(payload))

    def notification(self) -> tuple[str, str] | None:
        try:
            found = self._agent.wait_notification()
        except DeadlineError:
            return None
        return found.sender, found.payload.hex()

    def close(self) -> None:
        self._agent.close()

    def _peer(self, name: str) -> Peer | None:
        try:
            peer = self._agent.peer(name)
        except (UnknownPeerError, PeerGoneError):
            return None
        return peer if peer.gone is None else None


def _ranges(rows: list[list[int]]) -> DescriptorList:
    return DescriptorList.of(MemoryKind.DRAM, np.array(rows, np.uint64))


def make() -> Driven:
    _, name, kind = sys.argv
    return AgentMember(name) if kind == "Agent" else ApiMember(name, kind)


serve(make)
