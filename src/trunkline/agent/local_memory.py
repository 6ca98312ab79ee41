"""The memory an agent registered: with which backends, under which names, and what keeps it alive."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from trunkline.agent.registration import SHARED, Registration, descriptors_of, entry_of, keys_of, match_once
from trunkline.agent.tensor import LocalTensor, TensorGroup
from trunkline.backend.contract import RemoteBackend
from trunkline.errors import (
    ConfigurationError,
    MemoryRegistrationError,
    NoBackendError,
    NotRegisteredError,
    UnsupportedBufferError,
)
from trunkline.memory.buffer import Buffer, buffer_of
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind
from trunkline.memory.section import EMPTY, NO_SLOT, find_rows
from trunkline.metadata.catalog import Catalog, TensorEntry, item_bits
from trunkline.metadata.model import AgentMetadata, SectionMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from trunkline.backend.contract import Backend, Slots
    from trunkline.memory.descriptor import Rows
    from trunkline.memory.section import Section


MemoryPart: TypeAlias = LocalTensor | TensorGroup[LocalTensor] | Registration | DescriptorList
"""What can be picked out of an agent's memory: what ``register`` returned, views of it, or ranges inside it."""

_ADVICE = {
    MemoryKind.FILE: "; open one for files: create_backend('posix')",
    MemoryKind.OBJECT: "; open one for object stores: create_backend('object', url=...)",
}

_PART = (LocalTensor, TensorGroup, Registration, DescriptorList)


class LocalMemory:
    """All registrations of one agent. The agent serialises changes; look-ups may come from any thread.

    Args:
        agent: The agent's name.
        backends: Its backends by name.
        section: Where registered segments are looked up by transfers.
        before: Called with all kinds of memory there will be, before any of a kind is registered for the first time.
    """

    def __init__(
        self,
        agent: str,
        backends: Mapping[str, Backend],
        section: Section,
        before: Callable[[frozenset[MemoryKind]], None] = lambda _: None,
    ) -> None:
        self.section = section
        self._before = before
        self._kinds: frozenset[MemoryKind] = frozenset()
        self._agent = agent
        self._backends = backends
        self._numbers = itertools.count(1)
        self._registrations: dict[int, Registration] = {}
        self._hidden: dict[int, Registration] = {}  # their names stay taken

    def register(
        self, memory: Any, *, name: str | None, kind: MemoryKind | None, keys: Sequence[str] = ()
    ) -> LocalTensor | TensorGroup[LocalTensor] | Registration:
        """Register one buffer, a mapping of buffers, or a raw descriptor list. All or nothing.

        Raises:
            UnsupportedBufferError: No stable address can be had.
            MemoryRegistrationError: The name is taken, or a backend refused.
            NoBackendError: No backend takes this kind of memory.
        """
        number = next(self._numbers)
        if isinstance(memory, DescriptorList):
            if name is not None:
                raise ConfigurationError("a raw descriptor list has no shape, so the catalog can't name it: omit name=")
            lists: tuple[DescriptorList, ...] = (memory.expand(),)
            if keys and len(keys) != memory.count:
                raise ConfigurationError(f"{len(keys)} keys for {memory.count} segments: give one for each, or none")
            named = {memory.kind: tuple(keys)}
            registration = Registration(self._agent, number, None, lists, self._register(lists, named), keys=named)
            self._registrations[number] = registration
            return registration
        if isinstance(memory, Mapping):
            if name is None:
                raise ConfigurationError("a group of tensors needs a name: register(tensors, name=...)")
            if not memory:
                raise ConfigurationError(f"the group {name!r} is empty: there is nothing to register")
            buffers = {str(key): buffer_of(value, kind=kind) for key, value in memory.items()}
            entries = tuple(entry_of(f"{name}/{key}", buffer) for key, buffer in buffers.items())
        else:
            buffers = {"": buffer_of(memory, kind=kind)}
            entries = (entry_of(name, buffers[""]),) if name is not None else ()
        self._check_names(name, entries)
        lists = descriptors_of(buffers.values())
        named = keys_of(buffers.values())
        registration = Registration(
            self._agent,
            number,
            name,
            lists,
            self._register(lists, named),
            entries,
            group=isinstance(memory, Mapping),
            owners=tuple(buffers.values()),
            keys=named,
        )
        self._registrations[number] = registration
        views = {key: self._view(f"{name}/{key}" if key else name or "", buffers[key], number) for key in buffers}
        return TensorGroup(name, views) if isinstance(memory, Mapping) and name is not None else views[""]

    def prepare_for(self, kind: MemoryKind) -> None:
        """Have what a kind of memory needs opened, the first time there is any of it."""
        if kind not in self._kinds:
            self._before(self._kinds | {kind})
            self._kinds |= {kind}

    def adopt(self, name: str) -> None:
        """Register with a backend that has just been opened what was registered before.

        Raises:
            MemoryRegistrationError: It refuses some; it then has what it took before that.
        """
        backend = self._backends[name]
        taken = backend.capabilities.local_kinds | backend.capabilities.own_kinds
        if backend.capabilities.keyless:
            return
        for registration in list(self._registrations.values()):
            added: dict[tuple[str, MemoryKind], Slots] = {}
            for descriptors in registration.descriptors:
                if (kind := descriptors.kind) in taken:
                    added[name, kind] = backend.register(kind, descriptors.rows, registration.keys.get(kind, ()))
                    self.section.add(name, kind, descriptors.rows, added[name, kind])
            if added:
                self._registrations[registration.number] = replace(registration, slots={**registration.slots, **added})

    def find(self, memory: LocalTensor | TensorGroup[LocalTensor] | Registration) -> Registration:
        """Return the registration that made a view.

        Raises:
            NotRegisteredError: It is not registered (any more).
        """
        view = next(view for _, view in memory.items()) if isinstance(memory, TensorGroup) else memory
        number = view.number if isinstance(view, Registration) else view.registration
        registration = self._registrations.get(number)
        # Another agent has registrations of the same numbers.
        is_ours = view.agent == self._agent
        if registration is None or not is_ours:
            raise NotRegisteredError(f"{memory!r} is not registered with agent {self._agent!r} (any more)")
        return registration

    def carve(self, descriptors: DescriptorList) -> list[Registration]:
        """Return registrations of just these segments, split off those that raw descriptor lists made.

        A segment that was registered several times goes as often as it is listed, the latest first: its first
        registration's key is the one that peers have.

        Raises:
            NotRegisteredError: One is not registered, or not by a descriptor list; nothing is changed.
        """
        wanted = descriptors.expand().rows
        pieces: list[tuple[Registration, NDArray[np.bool_]]] = []
        for registration in reversed(self._registrations.values()):
            if not len(wanted):
                break
            if registration.owners or registration.descriptors[0].kind is not descriptors.kind:
                continue
            taken, found = match_once(registration.descriptors[0].rows, wanted)
            if found.any():
                pieces.append((registration, taken))
                wanted = wanted[~found]
        if len(wanted):
            address, length, device = wanted[0].tolist()
            raise NotRegisteredError(
                f"{length} bytes of {descriptors.kind.name} at {address:#x}, device {device}, are not a segment that "
                f"agent {self._agent!r} has registered by a descriptor list",
                address=address,
                length=length,
                device=device,
            )
        return [registration if taken.all() else self._split(registration, taken) for registration, taken in pieces]

    def _split(self, registration: Registration, taken: NDArray[np.bool_]) -> Registration:
        """Take some segments out of a registration, which stays with the others, and return them as another."""
        (descriptors,) = registration.descriptors
        parts = [
            Registration(
                self._agent,
                number,
                None,
                (DescriptorList(descriptors.kind, descriptors.rows[chosen]),),
                {key: slots[chosen] for key, slots in registration.slots.items()},
                keys={
                    kind: tuple(key for key, is_chosen in zip(keys, chosen, strict=True) if is_chosen)
                    for kind, keys in registration.keys.items()
                    if keys
                },
            )
            for number, chosen in ((registration.number, ~taken), (next(self._numbers), taken))
        ]
        self._registrations.update((part.number, part) for part in parts)
        return parts[1]

    def hide(self, registration: Registration) -> None:
        """Take it out of plans and metadata; it stays registered with the backends."""
        self._hidden[registration.number] = self._registrations.pop(registration.number)
        for (backend, kind), slots in registration.slots.items():
            self.section.remove(backend, kind, slots)

    def show(self, registration: Registration) -> None:
        """Undo :meth:`hide`."""
        by_kind = {descriptors.kind: descriptors for descriptors in registration.descriptors}
        for (backend, kind), slots in registration.slots.items():
            self.section.add(backend, kind, by_kind[kind].rows, slots)
        self._registrations[registration.number] = self._hidden.pop(registration.number)

    def drop(self, registration: Registration) -> None:
        """Deregister a hidden registration from the backends."""
        del self._hidden[registration.number]
        for (backend, _), slots in registration.slots.items():
            self._backends[backend].deregister(slots)

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
        for name, backend in self._backends.items():
            if not isinstance(backend, RemoteBackend):
                continue
            if connection_info:
                connections[name] = backend.connection_info()
            for (owner, kind), table in self.section.tables.items():
                if owner != name:
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

    def __len__(self) -> int:
        return len(self._registrations)

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

    def _check_names(self, name: str | None, entries: tuple[TensorEntry, ...]) -> None:
        """Refuse names that the catalog could not tell apart."""
        registered = [*self._registrations.values(), *self._hidden.values()]
        taken = {registration.name for registration in registered}
        taken |= {entry.name for registration in registered for entry in registration.entries}
        for wanted in (name, *(entry.name for entry in entries)):
            if wanted is not None and wanted in taken:
                raise MemoryRegistrationError(
                    f"agent {self._agent!r} has already registered memory as {wanted!r}", name=wanted
                )

    def _register(
        self, lists: tuple[DescriptorList, ...], keys: Mapping[MemoryKind, tuple[str, ...]]
    ) -> dict[tuple[str, MemoryKind], Slots]:
        done: dict[tuple[str, MemoryKind], Slots] = {}
        for descriptors in lists:
            self.prepare_for(descriptors.kind)
        try:
            for descriptors in lists:
                kind = descriptors.kind
                able = [name for name, backend in self._backends.items() if _takes(backend, kind)]
                if not able:
                    raise NoBackendError(
                        f"no backend of agent {self._agent!r} takes {kind.name} memory (it has {list(self._backends)})"
                        + _ADVICE.get(kind, ""),
                        kind=kind.name,
                    )
                for name in able:
                    done[name, kind] = self._backends[name].register(kind, descriptors.rows, keys.get(kind, ()))
        except BaseException:
            for (name, _), slots in done.items():
                self._backends[name].deregister(slots)
            raise
        for descriptors in lists:
            for (name, kind), slots in done.items():
                if kind is descriptors.kind:
                    self.section.add(name, kind, descriptors.rows, slots)
        return done

    def _view(self, name: str, buffer: Buffer, number: int) -> LocalTensor:
        return LocalTensor(
            name=name,
            agent=self._agent,
            kind=buffer.kind,
            device=buffer.device,
            address=buffer.address,
            dtype=buffer.dtype,
            shape=buffer.shape,
            item_bits=item_bits(buffer.dtype),
            readonly=buffer.readonly,
            registration=number,
        )


def _takes(backend: Backend, kind: MemoryKind) -> bool:
    capabilities = backend.capabilities
    return kind in capabilities.local_kinds | capabilities.own_kinds and not capabilities.keyless


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
