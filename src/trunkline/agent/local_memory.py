"""The memory an agent registered: with which backends, under which names, and what keeps it alive."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trunkline.agent.offer import Offer
from trunkline.agent.registration import Registration, descriptors_of, entry_of, keys_of, match_once
from trunkline.agent.tensor import LocalTensor, TensorGroup
from trunkline.errors import (
    ConfigurationError,
    MemoryRegistrationError,
    NoBackendError,
    NotRegisteredError,
)
from trunkline.memory.buffer import Buffer, buffer_of
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.catalog import TensorEntry, item_bits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from trunkline.backend.contract import Backend, Slots
    from trunkline.memory.section import Section


_ADVICE = {
    MemoryKind.FILE: "; open one for files: create_backend('posix')",
    MemoryKind.OBJECT: "; open one for object stores: create_backend('object', url=...)",
}


class LocalMemory(Offer):
    """All registrations of one agent. The agent serialises changes; look-ups may come from any thread.

    Args:
        agent: The agent's name.
        backends: Its backends by name.
        section: Where registered segments are looked up by transfers.
    """

    def __init__(self, agent: str, backends: Mapping[str, Backend], section: Section) -> None:
        self.section = section
        self._agent = agent
        self._backends = backends
        self._numbers = itertools.count(1)
        self._registrations: dict[int, Registration] = {}
        self._hidden: dict[int, Registration] = {}  # their names stay taken

    def register(
        self,
        memory: Any,
        *,
        name: str | None,
        kind: MemoryKind | None,
        keys: Sequence[str] = (),
        before: Callable[[frozenset[MemoryKind]], None] = lambda _: None,
    ) -> LocalTensor | TensorGroup[LocalTensor] | Registration:
        """Register one buffer, a mapping of buffers, or a raw descriptor list. All or nothing.

        Args:
            memory: What it is.
            name: What peers find it by.
            kind: Kind of memory, where the object doesn't say.
            keys: For a descriptor list of files or objects each one's path or key.
            before: Called with the kinds of memory, before anything is registered: to open what they need.

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
            before(frozenset({memory.kind}))
            return self._add(Registration(self._agent, number, None, lists, self._register(lists, named), keys=named))
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
        before(frozenset(descriptors.kind for descriptors in lists))
        self._add(
            Registration(
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
        )
        views = {key: self._view(f"{name}/{key}" if key else name or "", buffers[key], number) for key in buffers}
        return TensorGroup(name, views) if isinstance(memory, Mapping) and name is not None else views[""]

    def adopt(self, backend: Backend) -> None:
        """Register with a backend, which is about to be opened, what was registered before. All or nothing.

        Raises:
            MemoryRegistrationError: It refuses some; the caller closes it.
        """
        name = backend.name
        added: list[tuple[dict[int, Registration], Registration, dict[tuple[str, MemoryKind], Slots]]] = []
        for held in (self._registrations, self._hidden):
            for registration in held.values():
                slots = {
                    (name, descriptors.kind): backend.register(
                        descriptors.kind, descriptors.rows, registration.keys.get(descriptors.kind, ())
                    )
                    for descriptors in registration.descriptors
                    if _takes(backend, descriptors.kind)
                }
                added.append((held, registration, slots))
        for held, registration, slots in added:
            held[registration.number] = replace(registration, slots={**registration.slots, **slots})
            if held is self._registrations:
                self._show(registration, slots)

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
        held = self._hidden.pop(registration.number)  # with what backends were opened meanwhile
        self._show(held, held.slots)
        self._registrations[held.number] = held

    def drop(self, registration: Registration) -> None:
        """Deregister a hidden registration from the backends."""
        for (backend, _), slots in self._hidden.pop(registration.number).slots.items():
            self._backends[backend].deregister(slots)

    def _add(self, registration: Registration) -> Registration:
        self._show(registration, registration.slots)
        self._registrations[registration.number] = registration
        return registration

    def _show(self, registration: Registration, slots: Mapping[tuple[str, MemoryKind], Slots]) -> None:
        by_kind = {descriptors.kind: descriptors for descriptors in registration.descriptors}
        for (backend, kind), numbers in slots.items():
            self.section.add(backend, kind, by_kind[kind].rows, numbers)

    def __len__(self) -> int:
        return len(self._registrations)

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
        try:
            for descriptors in lists:
                kind = descriptors.kind
                able = [name for name, backend in list(self._backends.items()) if _takes(backend, kind)]
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
