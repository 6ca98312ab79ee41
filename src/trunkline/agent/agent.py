"""The agent: it owns memory, backends and peers, and wires directory and transfers together."""

from __future__ import annotations

import os
import threading
import warnings
from typing import TYPE_CHECKING, Any, Self, overload

from trunkline.agent.explanation import explain_work, report_backends
from trunkline.agent.lifetime import let_go, watch_over
from trunkline.agent.local_memory import LocalMemory
from trunkline.agent.opening import open_companion, open_engine, storage_for
from trunkline.agent.pair import PreparedPair, prepare_pair
from trunkline.agent.peers import Peers
from trunkline.agent.phone_book import DRAIN, PhoneBook
from trunkline.agent.record import record_of_bytes
from trunkline.backend.contract import QueryableBackend
from trunkline.backend.registry import create_backend
from trunkline.clock import DEFAULT, SYSTEM_CLOCK, Clock, Deadline, Timeout
from trunkline.config import Settings
from trunkline.errors import BackendUnavailableError, ConfigurationError, NoBackendError
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.card import Card, encode_card
from trunkline.metadata.codec import encode
from trunkline.metadata.key import DEFAULT_LABEL, DEFAULT_NAMESPACE, MetadataKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from trunkline.agent.explanation import BackendReport, Explanation
    from trunkline.agent.follower import Follower
    from trunkline.agent.local_memory import MemoryPart
    from trunkline.agent.membership import Membership
    from trunkline.agent.peer import Peer
    from trunkline.agent.registration import Registration
    from trunkline.agent.tensor import LocalTensor, TensorGroup
    from trunkline.backend.contract import Backend, BackendPeer
    from trunkline.store.contract import Store
    from trunkline.transfer.handle import TransferHandle
    from trunkline.transfer.inbox import Notification


class Agent(PhoneBook):
    """A process's participant: registers memory, finds peers by name, reads and writes theirs.

    Opening starts one progress thread, claims the name in the store (if there is one), and has this process watch who
    else is there. Close it, or use it as a context manager; an agent that is dropped open warns. Every method may be
    called from any thread. After a fork it can't be used in the child.

    Args:
        name: Unique name in the namespace: no leading dot, no slash, at most 255 bytes.
        store: Where agents find each other: a URL (``etcd://host:2379``), or an open Store, which stays the caller's.
            Without it ``NIXL_ETCD_ENDPOINTS`` counts; without that, or with ``""`` whatever the environment says, there
            is no store, and only the side channel works.
        store_options: What :func:`open_store` takes besides the URL: ``credentials`` (the path of a file),
            ``username``, ``password``, ``ca``, ``cert``, ``key``. Only with a URL.
        namespace: Key prefix that separates deployments; else ``NIXL_ETCD_NAMESPACE``, else ``/nixl/agents``.
        attributes: Free key/value pairs that peers see.
        backends: Names of backends, in order of preference, or open ones (the agent closes them). By default ``ucx``,
            with ``cma`` beside it for peers on the same host where that works (see ``TRUNKLINE_CMA``), and for files
            and stored objects what they need, once some are registered.
        devices: Network interfaces that UCX may use, as ``UCX_NET_DEVICES``; None leaves that to UCX.
        ttl: Seconds until peers of a killed agent see its keys vanish, at least 2; else ``TRUNKLINE_SESSION_TTL``,
            else 30.
        takeover: Replace a live agent of the same name instead of failing.
        reload: Whether a peer that was fetched and comes back under its name as a new incarnation is loaded by itself;
            else the next :meth:`fetch` does it.
        timeout: Default for all waiting calls, in seconds; None waits for ever.
        grace: Seconds a cancelled transfer may drain before its connection is closed by force.
        clock: For tests.

    Raises:
        ConfigurationError: A name, URL or setting can't be used.
        BackendUnavailableError: A backend can't be used here.
        StoreUnavailableError: The store did not answer in time.
        StoreAuthError: Wrong or missing credentials or rights, or a certificate that is not accepted.
        AgentNameInUseError: A live agent has the name.
    """

    def __init__(
        self,
        name: str,
        *,
        store: str | Store | None = None,
        store_options: Mapping[str, Any] | None = None,
        namespace: str | None = None,
        attributes: Mapping[str, str] | None = None,
        backends: Sequence[str | Backend] | None = None,
        devices: str | None = None,
        ttl: float | None = None,
        takeover: bool = False,
        reload: bool = True,
        timeout: float | None = 30.0,
        grace: float = 1.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._closed: bool = True  # until everything is open; __del__ looks at it
        settings = Settings.from_environment()
        namespace = namespace or settings.namespace or DEFAULT_NAMESPACE
        MetadataKey(namespace, name)  # refuses what can't be a key
        self.name = name
        self.incarnation = os.urandom(16).hex()
        self.timeout = timeout
        self._clock = clock
        self._lock = threading.RLock()  # registrations; never held while waiting
        self._close_lock = threading.Lock()
        self._attributes = dict(attributes or {})
        self._parts: dict[str, tuple[list[MemoryPart], bool]] = {}
        self._membership: Membership | None = None
        self._follower: Follower | None = None
        names = ("ucx",) if backends is None else backends
        self.engine = open_engine(self, names, devices=devices, timeout=timeout, grace=grace)
        self._unavailable = open_companion(self.engine, settings) if backends is None else {}
        before = self._open_storage if backends is None else _open_nothing
        self._memory = LocalMemory(name, self.engine.backends, self.engine.home.section, before)
        self._peers = Peers(name, timeout=timeout)
        try:
            store = store if store is not None else settings.store
            if store == "":
                store = None
            if store_options and store is None:
                raise ConfigurationError(f"agent {name!r}: store_options are for a store that is given by its URL")
            if store is not None:
                from trunkline.agent.membership import Membership

                self._membership = Membership(
                    name,
                    store,
                    namespace,
                    store_options=store_options or {},
                    incarnation=self.incarnation,
                    ttl=settings.session_ttl if ttl is None else ttl,
                    attributes=dict(attributes or {}),
                    backends=list(self.engine.backends),
                    takeover=takeover,
                    timeout=timeout,
                    clock=clock,
                )
                from trunkline.agent.follower import Follower

                self._follower = Follower(name, self._peers, self.engine, self._membership, reload=reload, clock=clock)
        except BaseException:
            if self._membership is not None:
                self._membership.close(0.0, Deadline(0.0))
                self._membership.disconnect()
            self.engine.close()
            raise
        self._closed = False
        watch_over(self)

    def create_backend(self, name: str, **options: Any) -> None:
        """Open one more backend, the last in order of preference.

        What was registered before is registered with it, too; peers that were loaded before are not reached by it.

        Args:
            name: The backend's name.
            **options: Its own settings.

        Raises:
            ConfigurationError: It has no such option, there is no such backend, or the agent has it already.
            BackendUnavailableError: It can't be used here.
            MemoryRegistrationError: It refuses memory that was registered before.
        """
        self.engine.check_open()
        with self._lock:
            backend = None if name.upper() in self.engine.backends else create_backend(name, self.name, **options)
            if backend is None or backend.name in self.engine.backends:
                if backend is not None:
                    backend.close()
                raise ConfigurationError(f"agent {self.name!r} has a backend {name.upper()!r} already", backend=name)
            self.engine.add_backend(backend)
            self._memory.adopt(backend.name)

    def backends(self) -> Sequence[BackendReport]:
        """Return the ways to move bytes: those that are open, in order of preference, with what they can do; then
        the others that are installed, with the reason why where they can't be used here (which takes up to a second
        to find out).
        """
        self.engine.check_open()
        return report_backends(self.engine, self._unavailable)

    def query(
        self, names: Sequence[str], *, kind: MemoryKind = MemoryKind.FILE, backend: str | None = None
    ) -> list[Mapping[str, str] | None]:
        """Ask what is there under some paths or keys; waits for the device or the store.

        Args:
            names: Paths of files, or keys of objects.
            kind: FILE or OBJECT.
            backend: Which backend to ask; by default the first that can be asked about this kind.

        Returns:
            For each ``size`` in bytes, ``mtime`` in seconds of the epoch, and what the backend adds; None for what is
            not there.

        Raises:
            NoBackendError: No backend can be asked.
            BackendError: It could not be found out.
        """
        self.engine.check_open()
        with self._lock:
            self._memory.prepare_for(kind)
        for name, found in list(self.engine.backends.items()):
            is_meant = name == backend.upper() if backend else kind in self.engine.capabilities[name].own_kinds
            if is_meant and isinstance(found, QueryableBackend):
                return found.query(kind, names)
        raise NoBackendError(
            f"agent {self.name!r} has no backend{f' {backend!r}' if backend else ''} that can be asked about "
            f"{kind.name} (it has {list(self.engine.backends)})"
        )

    # -- memory ------------------------------------------------------------------------------------------------

    # The last overload takes anything else: that it would also match these two is meant.
    @overload
    def register(  # pyright: ignore[reportOverlappingOverload]
        self, memory: DescriptorList, *, name: None = None, kind: None = None, keys: Sequence[str] = ()
    ) -> Registration: ...

    @overload
    def register(  # pyright: ignore[reportOverlappingOverload]
        self, memory: Mapping[str, Any], *, name: str, kind: MemoryKind | None = None
    ) -> TensorGroup[LocalTensor]: ...

    @overload
    def register(self, memory: Any, *, name: str | None = None, kind: MemoryKind | None = None) -> LocalTensor: ...

    def register(
        self, memory: Any, *, name: str | None = None, kind: MemoryKind | None = None, keys: Sequence[str] = ()
    ) -> Any:
        """Make memory usable in transfers. Nothing is copied; its owner is kept alive until :meth:`deregister`.

        Args:
            memory: A bytes-like object, a numpy array, a torch tensor, anything with DLPack or
                ``__cuda_array_interface__``, an (address, length, device) triple, a File, a StoredObject, a mapping of
                such (a model's state, one tensor per layer), or a DescriptorList of raw segments.
            name: What peers find it by; a mapping's members become ``name/key``. Publish to let them know.
            kind: Kind of memory, where the object doesn't say.
            keys: For a DescriptorList of FILE or OBJECT segments each one's path or key.

        Returns:
            A LocalTensor, for a mapping a TensorGroup, for a DescriptorList a Registration.

        Raises:
            UnsupportedBufferError: There is no contiguous memory whose address could be taken.
            MemoryRegistrationError: The name is taken, or a backend refused.
            NoBackendError: No backend takes this kind of memory.
        """
        self.engine.check_open()
        with self._lock:
            return self._memory.register(memory, name=name, kind=kind, keys=keys)

    def deregister(self, memory: MemoryPart, *, drain: float = DRAIN, timeout: Timeout = DEFAULT) -> None:
        """Take memory back. The memory must stay mapped until this returns.

        If it was published, it is withdrawn first, and peers get ``drain`` seconds to hear of it. Remote agents are
        kept out by their own Trunkline only: UCX lets a peer that has not heard write to memory that is no longer
        registered.

        Args:
            memory: What :meth:`register` returned, or any view of it (all of that registration goes); or a
                DescriptorList of segments that were registered by descriptor lists, in one call or in several.
            drain: Seconds for peers to hear of it.
            timeout: Seconds in all.

        Raises:
            NotRegisteredError: It is not registered.
            MemoryInUseError: A transfer of this agent still uses it at the deadline; it stays registered.
            StoreError, DirectoryError: It could not be withdrawn; it stays registered.
        """
        self.engine.check_open()
        deadline = self._deadline(timeout)
        with self._lock:
            if isinstance(memory, DescriptorList):
                registrations = self._memory.carve(memory)
            else:
                registrations = [self._memory.find(memory)]
            for registration in registrations:
                self._memory.hide(registration)
            self._peers.update_own(self._memory)
        try:
            self._publish_again(drain, deadline)
            for registration in registrations:
                for (backend, _), slots in registration.slots.items():
                    self.engine.check_unused(backend, slots, deadline)
        except BaseException:
            with self._lock:
                for registration in registrations:
                    self._memory.show(registration)
            raise
        with self._lock:
            for registration in registrations:
                self._memory.drop(registration)

    # -- side channel ------------------------------------------------------------------------------------------

    def card(self) -> bytes:
        """Return everything a peer needs, to be carried by the application: metadata, catalog, attributes."""
        self.engine.check_open()
        with self._lock:
            metadata, catalog = self._full_metadata(), self._encoded_catalog()
        return encode_card(
            Card(
                agent=self.name,
                incarnation=self.incarnation,
                metadata=metadata,
                catalog=catalog,
                attributes=dict(self.attributes),
            )
        )

    def local_metadata(
        self, segments: MemoryPart | Sequence[MemoryPart] | None = None, *, connection_info: bool = True
    ) -> bytes:
        """Return the metadata alone, as NIXL's agents understand it (``add_remote_agent``).

        Args:
            segments: Which memory, as for :meth:`publish`; None for all of it.
            connection_info: Whether it says how the agent is reached. A peer needs that once.

        Raises:
            ConfigurationError: It would say nothing.
            NotRegisteredError: A segment is not registered.
        """
        self.engine.check_open()
        with self._lock:
            return encode(self._memory.metadata(segments, connection_info=connection_info))

    def load_peer(self, data: bytes, *, label: str = DEFAULT_LABEL, extend: bool = False) -> Peer:
        """Load a peer from a card, or from the raw metadata of a NIXL agent.

        Args:
            data: The card or the metadata.
            label: Which part of the peer's metadata this is; parts under different labels add up.
            extend: Whether to add to what was loaded under that label, instead of replacing it.

        Raises:
            MetadataDecodeError: The bytes are neither.
            MetadataMismatchError: It is this agent's own.
            NoBackendError: There is no backend in common.
        """
        self.engine.check_open()
        return self._peers.load(self.engine, record_of_bytes(data, label=label), extend=extend)

    def peer(self, name: str) -> Peer:
        """Return the loaded peer of that name: the current incarnation, once it is loaded.

        Under its own name it is this agent itself, with all its memory: for transfers within it, and notifications to
        itself.

        Raises:
            UnknownPeerError: None was loaded, or it was unloaded.
            TrunklineError: It came back changed, and could not be loaded again for this reason.
        """
        if name != self.name:
            return self._peers.get(name)
        self.engine.check_open()
        with self._lock:
            return self._peers.own(self.engine, self._memory)

    def unload_peer(self, name: str) -> None:
        """Forget a peer, and follow it no more. Transfers to it end now, as failed.

        Raises:
            UnknownPeerError: None of that name is loaded.
        """
        self.engine.check_open()
        if self._follower is not None:
            self._follower.forget(name)
        self._peers.unload(self.engine, name, "unloaded")

    # -- transfers ---------------------------------------------------------------------------------------------

    def read(
        self,
        remote: Any,
        *,
        into: Any = None,
        peer: str | Peer | None = None,
        notify: bytes | None = None,
        tag: Any = None,
        deadline: float | None = None,
        backend: str | Sequence[str] | None = None,
    ) -> TransferHandle:
        """Start to read a peer's memory, or files and objects of this agent's, into its memory; returns at once.

        Args:
            remote: A view of the peer's memory (``peer[name]``, indexed or not) or of a registered File or
                StoredObject, or a list of (remote, local) pairs of views (then ``into`` must be None), or a
                DescriptorList. Pairs may be of different kinds of memory: each kind's backend then moves its part.
            into: A view of registered memory with the same shape and dtype; a DescriptorList beside one.
            peer: Whose memory a DescriptorList describes; views know.
            notify: A message for the peer, delivered after the data has been read.
            tag: Anything; the transfer will then also be returned by :meth:`take_finished`.
            deadline: Seconds after which the transfer is stopped, if it has not ended; its bytes are then undefined.
            backend: The backend to take instead of the one that is chosen; of several names the blocks are split over
                them, in proportion to their speed.

        Raises:
            ShapeMismatchError: The two sides don't fit.
            NoBackendError: No backend (or not the one named) moves these kinds of memory to that peer.
            NotRegisteredError, SegmentNotFoundError: A block lies outside registered memory, here or there.
            UnsupportedBufferError: A side is not a view of registered memory.
            ReadOnlyMemoryError: ``into`` can't be filled.
            PeerGoneError: The peer is gone.
        """
        if into is None and isinstance(remote, list):
            remote, into = None, [(mine, theirs) for theirs, mine in remote]
        return self._prepare(into, remote, peer, backend).read(notify=notify, tag=tag, deadline=deadline)

    def write(
        self,
        local: Any,
        *,
        to: Any = None,
        peer: str | Peer | None = None,
        notify: bytes | None = None,
        tag: Any = None,
        deadline: float | None = None,
        backend: str | Sequence[str] | None = None,
    ) -> TransferHandle:
        """Start to write this agent's memory into a peer's; returns at once.

        Arguments and errors are those of :meth:`read`, with a list being of (local, remote) pairs. What the peer's
        memory holds is undefined until the transfer is DONE, and after it was cancelled or failed.
        """
        return self._prepare(local, to, peer, backend).write(notify=notify, tag=tag, deadline=deadline)

    def prepare(
        self,
        local: Any,
        remote: Any,
        *,
        peer: str | Peer | None = None,
        backend: str | Sequence[str] | None = None,
    ) -> PreparedPair:
        """Fix two sides once, to read and write blocks of them again and again.

        Args:
            local: A view of registered memory, or a DescriptorList.
            remote: A view of the same peer's memory with the same row shape and dtype, or a DescriptorList.
            peer: Whose memory a DescriptorList describes.
            backend: As for :meth:`read`.

        Raises:
            As :meth:`read`.
        """
        return self._prepare(local, remote, peer, backend)

    def explain(self, request: PreparedPair | TransferHandle) -> Explanation:
        """Say which backend moves all blocks of a prepared pair, or those of a transfer, if it is made now; and why.

        Moves nothing, and waits for nothing.
        """
        if isinstance(request, PreparedPair):
            return request.explain()
        return explain_work(self.engine, request.target, request.work, None)

    def take_finished(self) -> list[TransferHandle]:
        """Return the tagged transfers that ended since the last call, each once. Returns at once, maybe empty."""
        return self.engine.take_finished()

    # -- notifications -----------------------------------------------------------------------------------------

    def notify(self, peer: str | Peer, payload: bytes) -> None:
        """Send a message to a peer; returns at once. It needs no memory and no transfer.

        Raises:
            UnknownPeerError, PeerGoneError: There is no such peer (any more).
            BackendError: No backend to that peer carries notifications, or the payload is too large for it.
        """
        found = self.peer(peer) if isinstance(peer, str) else peer
        self.engine.notify(found.target, payload)

    def take_notifications(self) -> list[Notification]:
        """Return what arrived, oldest first, maybe nothing. Returns at once.

        Raises:
            NotificationOverflowError: Some had to be dropped since the last call; the next call returns the rest.
        """
        self.engine.take_notifications()
        return self.engine.inbox.take()

    def wait_notification(
        self, *, matches: Callable[[Notification], bool] | None = None, timeout: Timeout = DEFAULT
    ) -> Notification:
        """Wait for the oldest notification (that matches) and return it; others stay.

        Raises:
            DeadlineError: None came in time.
            NotificationOverflowError: As in :meth:`take_notifications`.
            ClosedError: The agent was closed meanwhile.
        """
        return self.engine.wait_notification(self._deadline(timeout), matches)

    # -- end ---------------------------------------------------------------------------------------------------

    def close(self, timeout: Timeout = DEFAULT, *, drain: float = DRAIN) -> None:
        """Withdraw, let peers hear of it, end transfers, close connections. Idempotent; never raises for a store
        that is away: its keys then vanish with the lease.

        Args:
            timeout: Seconds in all; what does not drain in time is ended by force.
            drain: Seconds for peers to hear of it, if anything was published.
        """
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        let_go(self)
        deadline = self._deadline(timeout)
        if self._follower is not None:
            self._follower.close(deadline)
        if self._membership is not None:
            self._membership.close(drain, deadline)
        self.engine.drain(deadline)
        self._peers.close()
        self.engine.close()
        if self._membership is not None:
            self._membership.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(f"{self!r} was dropped without close()", ResourceWarning, stacklevel=1, source=self)
            self.close(timeout=0.0)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._memory)} registrations, {len(self._peers.all())} peers"
        return f"<Agent {self.name!r}, {state}>"

    # -- inside ------------------------------------------------------------------------------------------------

    def _prepare(
        self, local: Any, remote: Any, peer: str | Peer | None, backend: str | Sequence[str] | None
    ) -> PreparedPair:
        self.engine.check_open()
        found = self.peer(peer) if isinstance(peer, str) else peer
        target = found.target if found is not None else None
        return prepare_pair(self.engine, local, remote, target, backend=backend)

    def _open_storage(self, kinds: frozenset[MemoryKind]) -> None:
        """Open what files and objects need. Called with the agent's lock held."""
        for name, is_needed in storage_for(kinds, self.engine.backends):
            try:
                self.create_backend(name)
            except BackendUnavailableError as error:
                if is_needed:
                    raise
                self._unavailable[name.upper()] = str(error)

    def _after_fork(self) -> None:
        self._closed = True
        self.engine.after_fork()

    def _link_failed(self, link: BackendPeer) -> None:
        if not self._closed:
            self._peers.link_failed(self.engine, link)


def _open_nothing(kinds: frozenset[MemoryKind]) -> None:
    """What an agent whose backends were named opens for files and objects."""
