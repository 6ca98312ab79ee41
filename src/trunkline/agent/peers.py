"""The peers an agent has loaded: loading, updating, and noticing that one is gone."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import numpy as np

from trunkline.agent.local_memory import rows_of
from trunkline.agent.peer import Peer
from trunkline.backend.contract import ConnectionInfo
from trunkline.errors import (
    DeadlineError,
    MetadataMismatchError,
    NoBackendError,
    PeerGoneError,
    TrunklineError,
    UnknownPeerError,
)
from trunkline.transfer.target import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.agent.record import PeerRecord
    from trunkline.backend.contract import BackendPeer
    from trunkline.metadata.model import SectionMetadata
    from trunkline.transfer.engine import Engine

PROBE_TIMEOUT = 2.0
"""Seconds within which a peer whose connection broke has to answer on a new one."""

REMEMBERED_DEAD = 16
"""How many dead incarnations of one name are remembered, so that ``fetch`` does not return them."""

log = logging.getLogger(__name__)


class Peers:
    """An agent's peers by name. Any thread may call any method."""

    def __init__(self, agent: str, *, timeout: float | None) -> None:
        self._agent = agent
        self._timeout = timeout
        self._lock = threading.RLock()
        self._peers: dict[str, Peer] = {}
        self._dead: dict[str, list[str]] = {}
        self._probes: dict[Peer, threading.Thread] = {}
        self._closed = False

    def get(self, name: str) -> Peer:
        """Return the loaded peer of that name.

        Raises:
            UnknownPeerError: None is loaded.
        """
        try:
            return self._peers[name]
        except KeyError:
            raise UnknownPeerError(
                f"agent {self._agent!r} has not loaded a peer {name!r}; it has {sorted(self._peers)[:8]}. "
                f"Call fetch({name!r}) or load_peer() first",
                agent=name,
            ) from None

    def dead_incarnations(self, name: str) -> list[str]:
        """Return the incarnations of that name that this agent has seen die."""
        return list(self._dead.get(name, ()))

    def load(self, engine: Engine, record: PeerRecord) -> Peer:
        """Make a peer usable, or bring the loaded one up to date: unchanged segments are kept, new ones added,
        those that are gone dropped. Another incarnation replaces the one that was loaded.

        Raises:
            MetadataMismatchError: It is this agent's own metadata.
            MetadataDecodeError: Connection info or remote keys are not what they should be.
            NoBackendError: There is no backend in common.
        """
        metadata = record.metadata
        if metadata.agent == self._agent:
            raise MetadataMismatchError(f"agent {self._agent!r} can't load its own metadata as a peer")
        with self._lock:
            peer = self._peers.get(metadata.agent)
            if peer is not None and (
                peer.gone is not None
                or peer.incarnation != record.incarnation
                or any(peer.connections.get(name) != info for name, info in metadata.connections.items())
            ):
                self._replace(engine, peer)
                peer = None
            if peer is None:
                peer = self._open(engine, record)
            try:
                _update_segments(peer, metadata.sections)
            except BaseException:
                self.unload(engine, metadata.agent, "its metadata could not be loaded")
                raise
            peer.catalog = record.catalog
            peer.attributes = dict(record.attributes)
            return peer

    def unload(self, engine: Engine, name: str, reason: str) -> None:
        """Forget a peer: what is posted to it ends now.

        Raises:
            UnknownPeerError: None of that name is loaded.
        """
        with self._lock:
            peer = self.get(name)
            del self._peers[name]
        self._end(engine, peer, reason)

    def link_failed(self, engine: Engine, link: BackendPeer) -> None:
        """A connection broke: find out whether the peer still answers (called from the progress thread)."""
        with self._lock:
            peer = next((peer for peer in self._peers.values() if link in peer.target.links.values()), None)
            if peer is None or peer.gone is not None or peer in self._probes or self._closed:
                return
            probe = threading.Thread(
                target=self._probe, args=(engine, peer, link), name=f"trunkline-probe-{peer.name}", daemon=True
            )
            self._probes[peer] = probe
            try:
                probe.start()
            except RuntimeError as error:  # no more threads: the next failed transfer tries again
                del self._probes[peer]
                log.warning("peer %r: connection broke, and could not be probed: %s", peer.name, error)

    def close(self) -> None:
        """Close the connections to all peers. Idempotent."""
        with self._lock:
            self._closed = True
            peers, probes = list(self._peers.values()), list(self._probes.values())
            self._peers.clear()
        for peer in peers:
            peer.bury(f"agent {self._agent!r} was closed")
            for link in peer.target.links.values():
                link.close()
        for probe in probes:
            if probe is not threading.current_thread():
                probe.join()

    def all(self) -> list[Peer]:
        """Return the loaded peers."""
        return list(self._peers.values())

    def _open(self, engine: Engine, record: PeerRecord) -> Peer:
        metadata = record.metadata
        target = Target(metadata.agent, hears_failures=record.incarnation is not None)
        for name, info in metadata.connections.items():
            backend = engine.remote.get(name)
            if backend is not None:
                target.links[name] = backend.load_peer(metadata.agent, ConnectionInfo(info))
        if not target.links:
            raise NoBackendError(
                f"agent {self._agent!r} and peer {metadata.agent!r} have no backend in common: "
                f"{list(engine.backends)} here, {list(metadata.connections)} there",
                agent=metadata.agent,
            )
        peer = Peer(target, record, timeout=self._timeout)
        self._peers[metadata.agent] = peer
        return peer

    def _replace(self, engine: Engine, peer: Peer) -> None:
        del self._peers[peer.name]
        self._end(engine, peer, "superseded by a new incarnation")

    def _end(self, engine: Engine, peer: Peer, reason: str) -> None:
        peer.bury(reason)
        engine.forget_target(peer.target, reason)
        for link in peer.target.links.values():
            link.close()

    def _probe(self, engine: Engine, peer: Peer, link: BackendPeer) -> None:
        reason = link.failure or "connection lost"
        is_back = False
        try:
            link.connect(PROBE_TIMEOUT)
            is_back = True
            log.info("the connection to peer %r broke (%s) and was made again", peer.name, reason)
        except DeadlineError:
            log.warning("peer %r: connection broke (%s), and it does not answer", peer.name, reason)
        except PeerGoneError as error:
            self._declare_dead(engine, peer, f"unreachable: {error.context.get('reason') or reason}")
        except TrunklineError as error:
            if not self._closed:
                log.warning("peer %r: connection broke (%s), could not be probed: %s", peer.name, reason, error)
        finally:
            with self._lock:
                del self._probes[peer]
        if is_back and link.failure is not None:  # it broke again while this probe was still booked
            self.link_failed(engine, link)

    def _declare_dead(self, engine: Engine, peer: Peer, reason: str) -> None:
        with self._lock:
            if peer.gone is not None:
                return
            if peer.incarnation is not None:
                dead = self._dead.setdefault(peer.name, [])
                dead.append(peer.incarnation)
                del dead[:-REMEMBERED_DEAD]
        peer.bury(reason)
        engine.forget_target(peer.target, reason)


def _update_segments(peer: Peer, sections: tuple[SectionMetadata, ...]) -> None:
    """Bring a peer's segments in line with what its metadata says now; the same range under the same key is kept."""
    target = peer.target
    offered = {(section.backend, section.kind): section for section in sections if section.backend in target.links}
    for key in set(peer.sections) | set(offered):
        section, before = offered.get(key), peer.sections.get(key)
        link, table = target.links[key[0]], target.section.lookup(*key)
        if before is None and section is not None:  # all of it is new
            slots = link.load_segments(section.kind, section.segments, section.keys)
            target.section.add(*key, section.segments, slots)
            peer.sections[key] = section
            continue
        kept = _unchanged(before, section)
        stale = table.slots[~np.isin(rows_of(table.segments), kept)]
        if len(stale):
            target.section.remove(*key, stale)
            link.unload_segments(stale)
        if section is None:
            del peer.sections[key]
            continue
        fresh = np.flatnonzero(~np.isin(rows_of(section.segments), kept))
        if len(fresh):
            slots = link.load_segments(section.kind, section.segments[fresh], section.keys.take(fresh))
            target.section.add(*key, section.segments[fresh], slots)
        peer.sections[key] = section


def _unchanged(before: SectionMetadata | None, now: SectionMetadata | None) -> NDArray[np.void]:
    """Return the rows that both have, with equal keys."""
    if before is None or now is None:
        return rows_of(np.empty((0, 3), np.uint64))
    rows, old, new = np.intersect1d(rows_of(before.segments), rows_of(now.segments), return_indices=True)
    return rows[before.keys.take(old).equal_rows(now.keys.take(new))]
