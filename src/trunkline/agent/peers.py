"""The peers an agent has loaded: loading, updating, and noticing that one is gone."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from trunkline.agent.peer import Peer
from trunkline.agent.record import PeerRecord
from trunkline.backend.contract import ConnectionInfo
from trunkline.errors import (
    ClosedError,
    DeadlineError,
    MetadataMismatchError,
    NoBackendError,
    PeerGoneError,
    TrunklineError,
    UnknownPeerError,
)
from trunkline.metadata.key import DEFAULT_LABEL
from trunkline.transfer.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from trunkline.agent.local_memory import LocalMemory
    from trunkline.backend.contract import BackendPeer
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
        self._failures: dict[str, TrunklineError] = {}  # why a peer could not be loaded again
        self._probes: dict[Peer, threading.Thread] = {}
        self._own: tuple[Peer, object] | None = None  # the agent itself, and its tables when that was loaded
        self._closed = False
        self.on_death: Callable[[Peer], None] | None = None
        """Called, from any thread, when a peer's process turned out to be gone."""

    def get(self, name: str) -> Peer:
        """Return the loaded peer of that name; one that is gone stays, as a tombstone, until it is loaded again.

        Raises:
            UnknownPeerError: None was loaded, or it was unloaded.
            TrunklineError: It came back, and could not be loaded again for this reason.
        """
        failure = self._failures.get(name)
        if failure is not None:
            raise failure
        try:
            return self._peers[name]
        except KeyError:
            raise UnknownPeerError(
                f"agent {self._agent!r} has not loaded a peer {name!r}; it has {sorted(self._peers)[:8]}. "
                f"Call fetch({name!r}) or load_peer() first",
                agent=name,
            ) from None

    def find(self, name: str) -> Peer | None:
        """Return the peer of that name, alive or gone; None if none was loaded."""
        return self._peers.get(name)

    def own(self, engine: Engine, memory: LocalMemory) -> Peer:
        """Return the agent itself as a peer, with what is registered now. One caller at a time."""
        if self._own is None:
            record = PeerRecord(memory.metadata())
            self._own = self._make(engine, record, is_self=True), memory.section.tables
        elif set(engine.remote) - set(self._own[0].target.links):  # opened since
            self._update(engine, self._own[0], PeerRecord(memory.metadata()))
        self.update_own(memory)
        return self._own[0]

    def update_own(self, memory: LocalMemory) -> None:
        """Have what :meth:`own` returned, if it did, offer what is registered now. One caller at a time."""
        if self._own is not None and self._own[1] is not memory.section.tables:
            tables = memory.section.tables
            self._own[0].memory.load(DEFAULT_LABEL, memory.metadata(connection_info=False).sections)
            self._own = self._own[0], tables

    def dead_incarnations(self, name: str) -> list[str]:
        """Return the incarnations of that name that this agent has seen die."""
        return list(self._dead.get(name, ()))

    def load(self, engine: Engine, record: PeerRecord, *, extend: bool = False) -> Peer:
        """Make a peer usable, or bring one label's part of the loaded one up to date: unchanged segments are kept, new
        ones added, those that are gone dropped. What other labels brought stays. Another incarnation, or other
        connection info, replaces the peer that was loaded, and all its labels.

        All or nothing: what can't be loaded leaves things as they were.

        Args:
            engine: The agent's engine.
            record: What the peer offers.
            extend: Whether it is added to what its label offers, instead of replacing that.

        Raises:
            MetadataMismatchError: It is this agent's own metadata, or has another remote key than another label for
                the same range.
            ClosedError: The agent was closed.
            MetadataDecodeError: Connection info or remote keys are not what they should be.
            NoBackendError: The peer is not loaded, and the metadata has no connection info for a backend of ours.
        """
        metadata = record.metadata
        if metadata.agent == self._agent:
            raise MetadataMismatchError(f"agent {self._agent!r} can't load its own metadata as a peer")
        with self._lock:
            if self._closed:  # by another thread, while this one was fetching
                raise ClosedError(f"agent {self._agent!r} is closed: make a new Agent", agent=self._agent)
            peer = self._peers.get(metadata.agent)
            if peer is not None and record.incarnation is not None and record.incarnation == peer.incarnation:
                peer.revive()  # if it was lost, it is back
            if peer is None or _is_another(peer, record):
                peer = self._open(engine, record)
                self._failures.pop(metadata.agent, None)
                return peer
            self._update(engine, peer, record, extend=extend)
            self._failures.pop(metadata.agent, None)
            if record.catalog is not None:
                peer.catalog = record.catalog
            if record.incarnation is not None:
                peer.attributes = dict(record.attributes)
            return peer

    def drop_label(self, engine: Engine, name: str, label: str) -> bool:
        """Take back what one label of a loaded peer offers, and return whether the peer has others.

        If it was the last, the peer is gone as ``withdrawn``. A label that is not loaded changes nothing.

        Raises:
            UnknownPeerError: No peer of that name is loaded.
        """
        with self._lock:
            peer = self.get(name)
            if not set(peer.labels) & {label}:
                return True
            if set(peer.labels) - {label}:
                peer.memory.drop(label)
                return True
        self.end(engine, peer, "withdrawn")
        return False

    def unload(self, engine: Engine, name: str, reason: str) -> None:
        """Forget a peer: what is posted to it ends now.

        Raises:
            UnknownPeerError: None of that name is loaded.
        """
        with self._lock:
            self._failures.pop(name, None)
            peer = self.get(name)
            del self._peers[name]
        self.end(engine, peer, reason)

    def end(self, engine: Engine, peer: Peer, reason: str) -> None:
        """A peer is gone for good: what is posted to it ends now, and its connections are closed. Idempotent."""
        peer.bury(reason)
        engine.forget_target(peer.target, reason)
        _close_all(peer.target.links.values())

    def fail(self, name: str, error: TrunklineError) -> None:
        """What a peer publishes now can't be loaded: :meth:`get` says why, until it can be. What was loaded stays."""
        with self._lock:
            self._failures[name] = error

    def probe(self, peer: Peer) -> None:
        """Find out whether the data path to a peer still answers; takes at most ``PROBE_TIMEOUT`` seconds a backend.

        Raises:
            PeerGoneError: It refuses.
            DeadlineError, BackendError: It does not answer, or that could not be found out.
        """
        for link in peer.target.links.values():
            link.connect(PROBE_TIMEOUT)

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
            if self._own is not None:
                peers.append(self._own[0])
            self._peers.clear()
        for peer in peers:
            peer.bury(f"agent {self._agent!r} was closed")
            _close_all(peer.target.links.values())
        for probe in probes:
            if probe is not threading.current_thread():
                probe.join()

    def all(self) -> list[Peer]:
        """Return the loaded peers."""
        return list(self._peers.values())

    def _open(self, engine: Engine, record: PeerRecord) -> Peer:
        """Load a new peer, and only then let go of the one that it replaces."""
        peer = self._make(engine, record)
        before = self._peers.get(peer.name)
        self._peers[peer.name] = peer
        if before is not None:
            self.end(engine, before, "superseded by a new incarnation")
        return peer

    def _make(self, engine: Engine, record: PeerRecord, *, is_self: bool = False) -> Peer:
        metadata = record.metadata
        links = _link(engine, record)
        try:
            if all(engine.capabilities[name].keyless for name in links) and not is_self:
                raise self._no_backend(engine, record)
            target = Target(metadata.agent, links, hears_failures=record.incarnation is not None, is_self=is_self)
            peer = Peer(target, record, timeout=self._timeout)
            peer.memory.load(record.label, metadata.sections)
        except BaseException:
            _close_all(links.values())
            raise
        return peer

    def _update(self, engine: Engine, peer: Peer, record: PeerRecord, *, extend: bool = False) -> None:
        """Load what a peer offers now, also through backends that came since it was loaded. All or nothing."""
        target, before = peer.target, peer.target.links
        added = _link(engine, record, but=before)
        try:
            target.links = {**before, **added}
            (peer.memory.extend if extend else peer.memory.load)(record.label, record.metadata.sections)
        except BaseException:
            target.links = before
            _close_all(added.values())
            raise
        peer.connections.update(record.metadata.connections)

    def _no_backend(self, engine: Engine, record: PeerRecord) -> NoBackendError:
        name, there = record.metadata.agent, list(record.metadata.connections)
        if record.label == DEFAULT_LABEL and there:
            reason = f"agent {self._agent!r} and peer {name!r} have no backend in common"
        else:
            reason = (
                f"peer {name!r} is not loaded, and what it published as {record.label!r} can't reach it: "
                "fetch a label with connection info first"
            )
        return NoBackendError(f"{reason} ({list(engine.backends)} here, {there or 'none'} there)", agent=name)

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
        if self.on_death is not None:
            self.on_death(peer)


def _is_another(peer: Peer, record: PeerRecord) -> bool:
    """Whether a record is not of the incarnation that is loaded, or that one is gone.

    Metadata that came alone doesn't say whose it is; its connection info does, where it has any. That of a backend
    which it did not have before says nothing: the agent has opened one more.
    """
    if peer.gone is not None or record.incarnation not in (None, peer.incarnation):
        return True
    return any(peer.connections.get(name, info) != info for name, info in record.metadata.connections.items())


def _link(engine: Engine, record: PeerRecord, but: Collection[str] = ()) -> dict[str, BackendPeer]:
    """Return our backends' links to an agent, but for some. All or nothing."""
    links: dict[str, BackendPeer] = {}
    try:
        for name, info in record.metadata.connections.items():
            backend = engine.remote.get(name)
            if backend is not None and name not in but:
                links[name] = backend.load_peer(record.metadata.agent, ConnectionInfo(info))
    except BaseException:
        _close_all(links.values())
        raise
    return links


def _close_all(links: Iterable[BackendPeer]) -> None:
    for link in links:
        link.close()
