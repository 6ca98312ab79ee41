"""A loaded peer: what it offers, and the way to it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from trunkline.agent.remote_memory import RemoteMemory
from trunkline.agent.tensor import RemoteTensor, TensorGroup
from trunkline.clock import DEFAULT, Deadline, Timeout
from trunkline.errors import DeadlineError, SegmentGoneError, SegmentNotFoundError
from trunkline.metadata.catalog import Catalog, item_bits

if TYPE_CHECKING:
    from trunkline.agent.record import PeerRecord
    from trunkline.directory.view import AgentListing
    from trunkline.memory.descriptor import DescriptorList
    from trunkline.memory.kind import MemoryKind
    from trunkline.metadata.catalog import TensorEntry
    from trunkline.transfer.target import Target

REMEMBERED_NAMES = 1 << 16
"""How many names that a peer took back are remembered."""


class Peer:
    """One incarnation of another agent, made by ``Agent.fetch`` or ``Agent.load_peer``.

    ``peer[name]`` is a view of its memory. When the peer dies, is replaced or unloaded, the object stays as a
    tombstone: everything that would need the peer raises PeerGoneError. Any thread may call any method.

    Attributes:
        name: Its name.
        incarnation: 32 hex digits that tell this process's agent from its predecessors; None for a NIXL agent.
        attributes: The attributes it published.
        memory: The memory it offers, by label (for the agent).
    """

    def __init__(self, target: Target, record: PeerRecord, *, timeout: float | None) -> None:
        self.name = target.name
        self.incarnation = record.incarnation
        self.attributes = dict(record.attributes)
        self.target = target
        self.connections = dict(record.metadata.connections)
        self.memory = RemoteMemory(target)
        self._former: dict[str, None] = {}  # names it took back, oldest first
        self._offered = _by_name(record.catalog or Catalog())
        self._timeout = timeout
        self._gone = threading.Event()
        self._is_lost = False
        self._turn = threading.Lock()  # of those who say that it is gone, or back

    @property
    def catalog(self) -> Catalog:
        """What the peer says of all its memory by name, loaded or not; empty for a NIXL agent."""
        return self._offered[0]

    @catalog.setter
    def catalog(self, catalog: Catalog) -> None:
        (before, entries), now = self._offered, _by_name(catalog)
        former = [name for name in [*self._former, *before.groups, *entries] if not _is_offered(name, now)]
        # Known as former first, so that a name is never unknown in between.
        self._former = dict.fromkeys(former[-REMEMBERED_NAMES:])
        self._offered = now

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of its metadata that are loaded; what it offers is the union of them."""
        return self.memory.labels

    @property
    def gone(self) -> str | None:
        """Why the peer can't be used any more, or None."""
        return self.target.gone

    @property
    def transports(self) -> tuple[str, ...]:
        """What the backends really use to reach it (``"cma/memory"``); empty before its first use."""
        return tuple(transport for link in self.target.links.values() for transport in link.transports)

    def __getitem__(self, name: str) -> Any:
        """Return the RemoteTensor or TensorGroup the peer registered under this name.

        Raises:
            SegmentNotFoundError: It offers none of that name.
            SegmentGoneError: It did once, and took that memory back.
            PeerGoneError: The peer is gone.
        """
        self.target.check()
        catalog, entries = self._offered
        members = catalog.groups.get(name)
        if members is not None:
            views = {member.removeprefix(f"{name}/"): self._view(entries[member]) for member in members}
            return TensorGroup(name, views)
        if name in entries:
            return self._view(entries[name])
        offered = [*catalog.groups, *entries][:8] or "none by name"
        if name in self._former:
            raise SegmentGoneError(
                f"peer {self.name!r} took the memory named {name!r} back; it offers {offered} now",
                agent=self.name,
                name=name,
            )
        raise SegmentNotFoundError(
            f"peer {self.name!r} offers no memory named {name!r}; it offers {offered}", agent=self.name, name=name
        )

    def __contains__(self, name: object) -> bool:
        return _is_offered(name, self._offered)

    def keys(self) -> list[str]:
        """Return the names of groups and tensors it offers; members of groups are not listed."""
        catalog, entries = self._offered
        members = {member for group in catalog.groups.values() for member in group}
        return [*catalog.groups, *(name for name in entries if name not in members)]

    def segments(self, kind: MemoryKind) -> DescriptorList:
        """Return the registered segments of one kind, for transfers by raw descriptors.

        Raises:
            SegmentNotFoundError: It offers none.
            PeerGoneError: The peer is gone.
        """
        from trunkline.memory.descriptor import DescriptorList

        self.target.check()
        for (_, its_kind), table in self.target.section.tables.items():
            if its_kind is kind:
                return DescriptorList.of(kind, table.segments)
        raise SegmentNotFoundError(f"peer {self.name!r} offers no {kind.name} memory", agent=self.name)

    def offers(self, descriptors: DescriptorList) -> bool:
        """Return whether it can be reached, and all of these blocks lie in segments of one backend that it offers."""
        from trunkline.memory.section import NO_SLOT

        rows = descriptors.expand().rows
        return self.target.gone is None and any(
            kind is descriptors.kind and not (table.covering(rows) == NO_SLOT).any()
            for (_, kind), table in self.target.section.tables.items()
        )

    def connect(self, timeout: Timeout = DEFAULT) -> None:
        """Wire up and prove the path now, so that the first transfer needn't.

        Raises:
            PeerGoneError: The peer is gone, or refuses.
            DeadlineError: It did not answer in time.
        """
        self.target.check()
        deadline = Deadline(self._timeout if timeout is DEFAULT else timeout)
        for link in self.target.links.values():
            remaining = deadline.remaining()
            link.connect(float("inf") if remaining is None else remaining)

    def wait_gone(self, timeout: Timeout = DEFAULT) -> str:
        """Wait until the peer is known to be gone, and return why.

        Raises:
            DeadlineError: It was still there when the time was over.
        """
        seconds = self._timeout if timeout is DEFAULT else timeout
        if not self._gone.wait(seconds):
            raise DeadlineError(f"peer {self.name!r} is still there after {seconds:g} s", agent=self.name)
        return self.target.gone or "gone"

    @property
    def is_lost(self) -> bool:
        """Whether it is gone for now, and everything is kept for its return (for the agent)."""
        return self._is_lost

    def bury(self, reason: str) -> None:
        """Mark it as gone, for good (for the agent)."""
        with self._turn:
            self._is_lost = False
            if self.target.gone is None:
                self.target.gone = reason
            self._gone.set()

    def lose(self, reason: str) -> None:
        """Mark it as gone for now (for the agent)."""
        with self._turn:
            if self.target.gone is None:
                self.target.gone = reason
                self._is_lost = True
                self._gone.set()

    def revive(self) -> None:
        """It was lost and is back (for the agent)."""
        with self._turn:
            if self._is_lost:
                self._is_lost = False
                self._gone.clear()
                self.target.gone = None

    def _view(self, entry: TensorEntry) -> RemoteTensor:
        return RemoteTensor(
            name=entry.name,
            agent=self.name,
            kind=entry.kind,
            device=entry.device,
            address=entry.address,
            dtype=entry.dtype,
            shape=tuple(entry.shape),
            item_bits=item_bits(entry.dtype),
            target=self.target,
        )

    def __repr__(self) -> str:
        state = f"gone: {self.gone}" if self.gone else f"{len(self.catalog.tensors)} tensors"
        return f"<Peer {self.name!r}, {state}>"


def is_listed(peer: Peer, listing: AgentListing) -> bool:
    """Return whether a peer is the incarnation of a listing. NIXL's agents don't say which they are."""
    return listing.is_nixl if peer.incarnation is None else peer.incarnation == listing.incarnation


def _by_name(catalog: Catalog) -> tuple[Catalog, dict[str, TensorEntry]]:
    return catalog, {entry.name: entry for entry in catalog.tensors}


def _is_offered(name: object, offered: tuple[Catalog, dict[str, TensorEntry]]) -> bool:
    catalog, entries = offered
    return name in catalog.groups or name in entries
