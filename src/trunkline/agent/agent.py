"""The agent: it owns memory, backends and peers, and wires directory and transfers together."""

from __future__ import annotations

import os
import threading
import warnings
from typing import TYPE_CHECKING, Any, Self, overload

from trunkline.agent.backends import Backends
from trunkline.agent.lifetime import let_go, watch_over
from trunkline.agent.local_memory import LocalMemory
from trunkline.agent.opening import open_companion, open_engine
from trunkline.agent.peers import Peers
from trunkline.agent.phone_book import DRAIN, PhoneBook, check_drain
from trunkline.agent.record import record_of_bytes
from trunkline.agent.transfers import Transfers
from trunkline.clock import DEFAULT, SYSTEM_CLOCK, Clock, Deadline, Timeout
from trunkline.config import Settings
from trunkline.errors import ConfigurationError
from trunkline.memory.descriptor import DescriptorList
from trunkline.metadata.card import Card, encode_card
from trunkline.metadata.codec import encode
from trunkline.metadata.key import DEFAULT_LABEL, DEFAULT_NAMESPACE, MetadataKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from trunkline.agent.follower import Follower
    from trunkline.agent.membership import Membership
    from trunkline.agent.offer import MemoryPart
    from trunkline.agent.peer import Peer
    from trunkline.agent.registration import Registration
    from trunkline.agent.tensor import LocalTensor, TensorGroup
    from trunkline.backend.contract import Backend, BackendPeer
    from trunkline.memory.kind import MemoryKind
    from trunkline.store.contract import Store


class Agent(PhoneBook, Transfers, Backends):
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
        self._opens_storage, self._kinds = backends is None, frozenset()
        self._memory = LocalMemory(name, self.engine.backends, self.engine.home.section)
        self._peers = Peers(name, timeout=timeout)
        try:
            if backends is None:
                open_companion(self.engine, settings)
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
            return self._memory.register(memory, name=name, kind=kind, keys=keys, before=self._open_for)

    def deregister(self, memory: MemoryPart, *, drain: float = DRAIN, timeout: Timeout = DEFAULT) -> None:
        """Take memory back. The memory must stay mapped until this returns.

        If it was published, it is withdrawn first, and peers get ``drain`` seconds to hear of it. What was registered
        after the last ``publish`` goes at once, and without the store, unless that one failed. What other threads are
        publishing or withdrawing is waited for. Remote agents are kept out by their own Trunkline only: UCX lets a peer
        that has not heard write to memory that is no longer registered.

        Args:
            memory: What :meth:`register` returned, or any view of it (all of that registration goes); or a
                DescriptorList of segments that were registered by descriptor lists, in one call or in several.
            drain: Seconds for peers to hear of it.
            timeout: Seconds in all.

        Raises:
            NotRegisteredError: It is not registered.
            MemoryInUseError: A transfer of this agent still uses it at the deadline; it stays registered.
            StoreError, DirectoryError: It could not be withdrawn; it stays registered.
            ConfigurationError: ``drain`` is negative, endless or not a number; it stays registered.
        """
        self.engine.check_open()
        check_drain(drain)
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
                catalog=catalog or None,
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

    # -- end ---------------------------------------------------------------------------------------------------

    def close(self, timeout: Timeout = DEFAULT, *, drain: float = DRAIN) -> None:
        """Withdraw, let peers hear of it, end transfers, close connections. Idempotent; never raises for a store
        that is away: its keys then vanish with the lease.

        Args:
            timeout: Seconds in all; what does not drain in time is ended by force.
            drain: Seconds for peers to hear of it, if anything was published.

        Raises:
            ConfigurationError: ``drain`` is negative, endless or not a number; the agent stays open.
        """
        check_drain(drain)
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

    def _after_fork(self) -> None:
        self._closed = True
        self.engine.after_fork()

    def _link_failed(self, link: BackendPeer) -> None:
        if not self._closed:
            self._peers.link_failed(self.engine, link)
