"""The peers that a NIXL agent has loaded, and the least that has to be done for a new version of one."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from trunkline.agent.record import PeerRecord, record_of_publication
from trunkline.errors import BackendError, MetadataMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from trunkline.directory.publication import Publication
    from trunkline.directory.view import AgentListing
    from trunkline.memory.kind import MemoryKind
    from trunkline.metadata.model import AgentMetadata, SectionMetadata
    from trunkline.nixl.contract import NixlAgent

_Answer = TypeVar("_Answer")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NixlPeer:
    """A peer that is loaded in a NIXL agent.

    Attributes:
        name: Its name, for NIXL's calls.
        incarnation: Which run of the peer; None for NIXL's own agents, which don't say.
        attributes: What it says of itself.
        labels: The parts of its metadata that are loaded.
        load: Grows whenever the peer had to be removed and added: NIXL refuses transfers and lists that were prepared
            under a lower number, with ``nixlNotFoundError``. Prepare them anew.
    """

    name: str
    incarnation: str | None
    attributes: Mapping[str, str]
    labels: tuple[str, ...]
    load: int


@dataclass(frozen=True, slots=True)
class _Part:
    """One label as it was loaded.

    Attributes:
        data: The bytes.
        metadata: What they say.
        generation: The number by which the directory tells this content from others.
    """

    data: bytes
    metadata: AgentMetadata
    generation: int


@dataclass(slots=True)
class _Held:
    """A loaded peer."""

    incarnation: str | None
    attributes: Mapping[str, str] = field(default_factory=dict)
    parts: dict[str, _Part] = field(default_factory=dict)


class RemoteAgents:
    """Loads and removes peers of one NIXL agent. Any thread may call any method: one at a time is let into NIXL.

    Args:
        name: The agent's name.
        nixl_agent: The agent.
    """

    def __init__(self, name: str, nixl_agent: NixlAgent) -> None:
        self._name = name
        self._nixl_agent = nixl_agent
        self._lock = threading.RLock()  # held while NIXL is called
        self._held: dict[str, _Held] = {}
        self._loads: dict[str, int] = {}

    def call(self, what: str, function: Callable[..., _Answer], *arguments: object) -> _Answer:
        """Call one of NIXL's functions, as the only one.

        Raises:
            BackendError: It failed; NIXL's own exception is the cause.
        """
        with self._lock:
            try:
                return function(*arguments)
            except Exception as error:  # NIXL's exceptions have no common base
                raise BackendError(
                    f"agent {self._name!r}: NIXL can't {what}: {type(error).__name__}: {error}", agent=self._name
                ) from error

    def load(self, publication: Publication) -> NixlPeer:
        """Load a label of a peer, or bring it up to date. What other labels brought stays.

        What is added is added. NIXL can't take back or change a part of what it loaded: for that, and for another
        incarnation, the peer is removed and loaded from the start.

        Raises:
            MetadataError: The bytes are not what they should be, or the agent's own.
            BackendError: NIXL refuses them; then the peer is not loaded.
        """
        record = record_of_publication(publication)
        name, label = publication.name, publication.label
        if name == self._name:
            raise MetadataMismatchError(f"agent {self._name!r} can't load its own metadata as a peer", agent=name)
        presence = publication.presence
        generation = publication.revision if presence is None else presence.labels[label].generation
        part = _Part(publication.metadata, record.metadata, generation)
        with self._lock:
            held = self._held.get(name)
            if held is not None and _is_another(held, record):
                self.remove(name)
                held = None
            if held is None:
                self._load_anew(name, _Held(record.incarnation, record.attributes, {label: part}))
            else:
                held.attributes = record.attributes
                self._change(name, held, {**held.parts, label: part}, part)
            return self._peer(name)

    def drop_label(self, name: str, label: str) -> None:
        """Take back what only this label offers. No effect if it is not loaded.

        Raises:
            BackendError: NIXL refuses what is left; then the peer is not loaded.
        """
        with self._lock:
            held = self._held.get(name)
            if held is None or label not in held.parts:
                return
            parts = {other: part for other, part in held.parts.items() if other != label}
            if parts:
                self._change(name, held, parts)
            else:
                self.remove(name)

    def remove(self, name: str) -> None:
        """Remove a peer: transfers to it end. No effect if it is not loaded; what NIXL says against it is logged."""
        with self._lock:
            if self._held.pop(name, None) is not None:
                self._forget(name)

    def remove_other(self, listing: AgentListing) -> None:
        """Remove a peer, unless it is of the incarnation of a listing once nobody is loading it any more."""
        with self._lock:
            if not self.is_loaded(listing):
                self.remove(listing.name)

    def update(self, listing: AgentListing) -> None:
        """Note what a peer says of itself now."""
        with self._lock:
            held = self._held.get(listing.name)
            if held is not None and held.incarnation is not None:
                held.attributes = dict(listing.attributes)

    def is_loaded(self, listing: AgentListing) -> bool:
        """Return whether the incarnation of a listing is loaded. Of NIXL's own agents any one is taken for it."""
        held = self._held.get(listing.name)
        if held is None:
            return False
        return listing.is_nixl if held.incarnation is None else held.incarnation == listing.incarnation

    def generation(self, name: str, label: str) -> int | None:
        """Return the number of the content that is loaded of a label; None if none is."""
        held = self._held.get(name)
        return None if held is None or label not in held.parts else held.parts[label].generation

    def peers(self) -> dict[str, NixlPeer]:
        """Return the peers that are loaded, by name."""
        with self._lock:
            return {name: self._peer(name) for name in self._held}

    def peer(self, name: str) -> NixlPeer | None:
        """Return one peer; None if it is not loaded."""
        with self._lock:
            return self._peer(name) if name in self._held else None

    def _peer(self, name: str) -> NixlPeer:
        held = self._held[name]
        return NixlPeer(name, held.incarnation, held.attributes, tuple(held.parts), self._loads[name])

    def _change(self, name: str, held: _Held, parts: dict[str, _Part], added: _Part | None = None) -> None:
        """Make these the parts that are loaded of a peer."""
        if not _offers(held.parts.values()) <= _offers(parts.values()):
            self.remove(name)
            self._load_anew(name, replace(held, parts=parts))
            return
        held.parts = parts
        if added is not None:
            try:
                self._add(name, added)
            except BackendError:
                self._load_anew(name, held)

    def _load_anew(self, name: str, held: _Held) -> None:
        """Load all parts of a peer. It may be loaded already: by the application itself, or by half."""
        try:
            self._add_all(name, held)
        except BackendError:
            self._forget(name)
            try:
                self._add_all(name, held)
            except BackendError:
                self._held.pop(name, None)
                self._forget(name)
                raise
        self._held[name] = held
        self._loads[name] = self._loads.get(name, 0) + 1

    def _add_all(self, name: str, held: _Held) -> None:
        for part in sorted(held.parts.values(), key=lambda part: not part.metadata.connections):
            self._add(name, part)

    def _add(self, name: str, part: _Part) -> None:
        self.call(f"load peer {name!r}", self._nixl_agent.add_remote_agent, part.data)

    def _forget(self, name: str) -> None:
        try:
            self.call(f"remove peer {name!r}", self._nixl_agent.remove_remote_agent, name)
        except BackendError as error:
            log.warning("%s", error)


def _offers(parts: Iterable[_Part]) -> set[tuple[str, MemoryKind | None, bytes]]:
    """Return all that parts of a peer's metadata offer: how it is reached, and each range with its key."""
    offers: set[tuple[str, MemoryKind | None, bytes]] = set()
    for part in parts:
        offers.update((backend, None, info) for backend, info in part.metadata.connections.items())
        for section in part.metadata.sections:
            offers.update(zip(repeat(section.backend), repeat(section.kind), _records(section)))
    return offers


def _records(section: SectionMetadata) -> Iterator[bytes]:
    """Yield each range with its key, as bytes."""
    data = np.frombuffer(section.keys.data, np.uint8)
    for size in np.unique(section.keys.size).tolist():
        rows = np.flatnonzero(section.keys.size == size)
        keys = data[section.keys.offset[rows, None] + np.arange(size)]
        records = np.hstack([np.ascontiguousarray(section.segments[rows]).view(np.uint8), keys])
        yield from records.view(f"V{records.shape[1]}")[:, 0].tolist()


def _is_another(held: _Held, record: PeerRecord) -> bool:
    """Whether a record is not of the incarnation that is loaded; that of a NIXL agent shows by how it is reached."""
    if held.incarnation != record.incarnation:
        return True
    known = {name: info for part in held.parts.values() for name, info in part.metadata.connections.items()}
    return any(known.get(name, info) != info for name, info in record.metadata.connections.items())
