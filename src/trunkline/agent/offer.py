"""The part of an agent's memory that has to do with peers: what they are told of it, all or in part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from trunkline.agent.registration import SHARED, Registration
from trunkline.agent.tensor import LocalTensor, TensorGroup
from trunkline.backend.contract import RemoteBackend
from trunkline.errors import ConfigurationError, NotRegisteredError, UnsupportedBufferError
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.section import EMPTY, NO_SLOT, find_rows
from trunkline.metadata.catalog import Catalog
from trunkline.metadata.model import AgentMetadata, SectionMetadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from trunkline.backend.contract import Backend, Slots
    from trunkline.memory.descriptor import Rows
    from trunkline.memory.kind import MemoryKind
    from trunkline.memory.section import Section


MemoryPart: TypeAlias = LocalTensor | TensorGroup[LocalTensor] | Registration | DescriptorList
"""What can be picked out of an agent's memory: what ``register`` returned, views of it, or ranges inside it."""

_PART = (LocalTensor, TensorGroup, Registration, DescriptorList)


class Offer(ABC):
    """What ``LocalMemory`` inherits. Look-ups may come from any thread."""

    section: Section
    _agent: str
    _backends: Mapping[str, Backend]
    _registrations: dict[int, Registration]

    @abstractmethod
    def find(self, memory: LocalTensor | TensorGroup[LocalTensor] | Registration) -> Registration:
        """Return the registration that made a view."""

    def metadata(
        self, segments: MemoryPart | Sequence[MemoryPart] | None = None, *, connection_info: bool = True
    ) -> AgentMetadata:
        """Return what peers need to reach all of it, or a part of it.

        Args:
            segments: Which of it: whole registrations, by what ``register`` returned or any view of it, and the
                registered segments that hold the ranges of descriptor lists. None for all of it.
            connection_info: Whether to say how the agent is reached; a peer needs that once.

        Raises:
            ConfigurationError: Neither segments nor connection info.
            NotRegisteredError: Something is not registered (any more).
            UnsupportedBufferError: Something is not what ``register`` returned.
        """
        chosen = None
        if segments is not None:
            parts = parts_of(segments)
            if not parts and not connection_info:
                raise ConfigurationError(
                    f"metadata of agent {self._agent!r} with neither segments nor connection info would say nothing: "
                    "pass segments=, or connection_info=True"
                )
            chosen = self._slots_of(parts)
        connections: dict[str, bytes] = {}
        sections: list[SectionMetadata] = []
        for name, backend in list(self._backends.items()):  # another thread may just open one more
            if not isinstance(backend, RemoteBackend):
                continue
            if connection_info:
                connections[name] = backend.connection_info()
            for (owner, kind), table in self.section.tables.items():
                if owner != name or kind not in backend.capabilities.remote_kinds:
                    continue
                # The same range registered twice is one segment to peers: NIXL refuses a second key for it. The first
                # registration's key stands for both in every part, so that labels agree.
                ranges, slots = _distinct(table.segments, table.slots)
                if chosen is not None:
                    picked = np.isin(table.slots, chosen.get((owner, kind), EMPTY.slots))
                    of_part = find_rows(ranges, np.unique(table.segments[picked], axis=0)) >= 0
                    ranges, slots = ranges[of_part], slots[of_part]
                if len(ranges):
                    sections.append(SectionMetadata(name, kind, ranges, backend.remote_keys(slots)))
        return AgentMetadata(self._agent, connections, tuple(sections))

    def remaining(self, parts: Iterable[MemoryPart]) -> list[MemoryPart]:
        """Return what is still registered of some parts."""
        kept: list[MemoryPart] = []
        for part in parts:
            try:
                self._slots_of([part])
            except NotRegisteredError:
                if isinstance(part, DescriptorList):
                    rows = part.expand()
                    tables = [table for (_, kind), table in self.section.tables.items() if kind is part.kind]
                    covered = [table.covering(rows.rows) != NO_SLOT for table in tables]
                    left = np.flatnonzero(np.any(covered, axis=0)) if covered else np.empty(0, np.intp)
                    kept.extend([rows.select(left)] if len(left) else [])
            else:
                kept.append(part)
        return kept

    def catalog(self) -> Catalog:
        """Return what peers may know of it by name."""
        entries = {
            registration: tuple(entry for entry in registration.entries if entry.kind in SHARED)
            for registration in self._registrations.values()
        }
        return Catalog(
            tensors=tuple(entry for each in entries.values() for entry in each),
            groups={
                registration.name: tuple(entry.name for entry in each)
                for registration, each in entries.items()
                if registration.group and registration.name is not None and each
            },
        )

    def _slots_of(self, parts: Iterable[MemoryPart]) -> dict[tuple[str, MemoryKind], Slots]:
        """Return the registered segments that parts of the memory belong to, or lie in."""
        found: dict[tuple[str, MemoryKind], list[Slots]] = {}
        for part in parts:
            for each in [self._covering(part)] if isinstance(part, DescriptorList) else self._registered(part):
                for key, slots in each.items():
                    found.setdefault(key, []).append(slots)
        return {key: np.concatenate(slots) for key, slots in found.items()}

    def _registered(self, part: Any) -> list[Mapping[tuple[str, MemoryKind], Slots]]:
        views = [view for _, view in part.items()] if isinstance(part, TensorGroup) else [part]
        for view in views:
            if not isinstance(view, (LocalTensor, Registration)):
                raise UnsupportedBufferError(
                    f"segments= takes what register() returned, views of it, or DescriptorLists, "
                    f"not a {type(view).__name__}"
                )
        return [registration.slots for registration in {self.find(view) for view in views}]

    def _covering(self, descriptors: DescriptorList) -> dict[tuple[str, MemoryKind], Slots]:
        rows = descriptors.expand().rows
        found = {key: table.covering(rows) for key, table in self.section.tables.items() if key[1] is descriptors.kind}
        is_missing = np.ones(len(rows), bool)
        for slots in found.values():
            is_missing &= slots == NO_SLOT
        if is_missing.any():
            address, length, device = rows[np.argmax(is_missing)].tolist()
            raise NotRegisteredError(
                f"{length} bytes of {descriptors.kind.name} at {address:#x}, device {device}, lie in no segment that "
                f"agent {self._agent!r} has registered",
                address=address,
                length=length,
                device=device,
            )
        return found


def parts_of(given: MemoryPart | Sequence[MemoryPart] | None) -> list[MemoryPart]:
    """Return what a caller gave as one part, several, or none, as a list."""
    if given is None:
        return []
    return [given] if isinstance(given, _PART) else list(given)


def _distinct(segments: Rows, slots: Slots) -> tuple[Rows, Slots]:
    """Return each range once, sorted: registered twice it is one segment to peers, since NIXL refuses a second key."""
    address = segments[:, 0]
    if len(address) < 2 or (address[1:] > address[:-1]).all():  # as nearly always; np.unique is slow
        return segments, slots
    segments, rows = np.unique(segments, axis=0, return_index=True)
    return segments, slots[rows]
