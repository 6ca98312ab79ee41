"""NVIDIA's ``nixl_agent`` behind Trunkline's phone book: the application's own agent does the transfers."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any, Self

from trunkline.agent.lifetime import let_go, watch_over
from trunkline.agent.phone_book import DRAIN, check_drain
from trunkline.clock import DEFAULT, Deadline, Timeout
from trunkline.errors import ClosedError, ConfigurationError, ForkedError, UnknownPeerError
from trunkline.metadata.codec import decode
from trunkline.metadata.key import DEFAULT_LABEL
from trunkline.nixl.follower import Follower
from trunkline.nixl.remote_agents import NixlPeer, RemoteAgents

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from trunkline.agent.membership import Membership
    from trunkline.clock import Clock
    from trunkline.directory.view import DirectoryView
    from trunkline.directory.watch import DirectoryWatch
    from trunkline.nixl.contract import NixlAgent


class NixlAdapter:
    """A NIXL agent's place in the phone book. Made by ``adapt``; a context manager.

    Any thread may call any method, and the adapter calls NIXL from one thread at a time. It does so only within
    :meth:`publish`, :meth:`fetch` and :meth:`unload`, and while somebody takes events from a :meth:`watch`: that is
    when loaded peers are brought up to date. The application's own calls to NIXL are not seen here. By default
    NIXL's agents are not thread-safe, so let one thread do both; or make the agent with a ``sync_mode``.

    Attributes:
        name: The agent's name.
        incarnation: Which run of the agent this is: 128 random bits in hexadecimal digits.
        timeout: Default for all waiting calls, in seconds.
    """

    def __init__(
        self,
        nixl_agent: NixlAgent,
        membership: Membership,
        *,
        name: str,
        incarnation: str,
        timeout: float | None,
        clock: Clock,
    ) -> None:
        self._closed: bool = True  # until everything is open; __del__ looks at it
        self._is_forked = False
        self.name = name
        self.incarnation = incarnation
        self.timeout = timeout
        self._nixl_agent = nixl_agent
        self._membership = membership
        self._clock = clock
        self._close_lock = threading.Lock()
        self._remote_agents = RemoteAgents(name, nixl_agent)
        self._follower = Follower(name, self._remote_agents, membership, clock)
        self._closed = False
        watch_over(self)

    @property
    def attributes(self) -> Mapping[str, str]:
        """What others see of the agent and select it by."""
        return self._membership.publisher.attributes

    @property
    def lost(self) -> str | None:
        """Why others can't find the agent at present, or None. It comes back by itself, unless another agent has taken
        its name.
        """
        return self._membership.publisher.lost

    def publish(
        self,
        *,
        label: str = DEFAULT_LABEL,
        descs: Any = None,
        connection_info: bool = False,
        backends: Sequence[str] = (),
        timeout: Timeout = DEFAULT,
    ) -> int:
        """Let others know of the agent and its memory; returns the store's revision once the store has answered.

        Call it again when memory was registered or deregistered. What is published already costs no write. A
        publication that fails because the store is away is made up for when it is back.

        Args:
            label: Which part of the metadata: ``metadata`` is everything that is registered now.
            descs: For another label: which registered memory, as NIXL's registration list (``register_memory`` returns
                one, ``get_reg_descs`` makes one).
            connection_info: For another label: whether it says how the agent is reached. A peer needs that once.
            backends: For another label: only what these backends offer.
            timeout: Seconds to wait for the store.

        Raises:
            ConfigurationError: Another label without ``descs``, or they with ``metadata``; or NIXL's metadata is that
                of another agent.
            BackendError: NIXL can't say its metadata.
            StoreError: The store could not be reached or refused.
            SupersededError: Another agent took the name.
            DeadlineError: Another thread was publishing all the time.
        """
        self._check_open()
        if (label == DEFAULT_LABEL) != (descs is None):
            raise ConfigurationError(
                f"publish(label={label!r}): the label {DEFAULT_LABEL!r} is everything; give descs= with another label, "
                "and only there",
                label=label,
            )

        def describe() -> tuple[bytes, None]:
            agent = self._nixl_agent
            if descs is None:
                metadata = self._remote_agents.call("say its metadata", agent.get_agent_metadata)
            else:
                partial = agent.get_partial_agent_metadata
                metadata = self._remote_agents.call(
                    "say a part of its metadata", partial, descs, connection_info, list(backends)
                )
            owner = decode(metadata).agent
            if owner != self.name:
                raise ConfigurationError(
                    f"this is the adapter of agent {self.name!r}, but the NIXL agent calls itself {owner!r}",
                    agent=self.name,
                )
            return bytes(metadata), None

        return self._membership.publish(label, describe, self._deadline(timeout))

    def withdraw(self, *, label: str | None = None, timeout: Timeout = DEFAULT) -> int:
        """Take back what was published, and keep the name; returns the store's revision.

        Args:
            label: Just this part; None for everything: others then forget the agent.
            timeout: Seconds to wait for the store.

        Raises:
            StoreError, SupersededError, DeadlineError: As :meth:`publish`.
        """
        self._check_open()
        return self._membership.withdraw(label, self._deadline(timeout))

    def update_attributes(self, attributes: Mapping[str, str], *, timeout: Timeout = DEFAULT) -> int:
        """Replace the attributes that others see and select by, in one write; returns the store's revision.

        Args:
            attributes: All of them, at most 32, of at most 64 and 255 characters.
            timeout: Seconds to wait for the store.

        Raises:
            ConfigurationError: Too many, too long, or not strings.
            StoreError, SupersededError, DeadlineError: As :meth:`publish`.
        """
        self._check_open()
        return self._membership.update(self._deadline(timeout), attributes=attributes)

    def fetch(self, name: str, *, label: str = DEFAULT_LABEL, timeout: Timeout = DEFAULT) -> NixlPeer:
        """Find an agent by name and load it into the NIXL agent, waiting for it if it is not there yet.

        From then on it is kept up to date while a :meth:`watch` is read: what it publishes anew is loaded, a new run of
        it under its name replaces it, and when it leaves it is removed.

        Args:
            name: The agent's name.
            label: Which part of its metadata; parts that are fetched one after the other add up.
            timeout: Seconds.

        Raises:
            AgentNotFoundError: Nobody of that name published in time (also a LookupError and a TimeoutError).
            MetadataDecodeError, MetadataMismatchError: What lies under the name can't be used.
            BackendError: NIXL refuses it.
            StoreError: The store failed.
        """
        [peer] = self.fetch_many([name], label=label, timeout=timeout)
        return peer

    def fetch_many(
        self, names: Sequence[str], *, label: str = DEFAULT_LABEL, timeout: Timeout = DEFAULT
    ) -> list[NixlPeer]:
        """Find several agents by name and load them, as :meth:`fetch` does each, but with far fewer requests.

        Args:
            names: The agents' names.
            label: Which part of their metadata.
            timeout: Seconds for all together.

        Returns:
            The peers, in the order of the names.

        Raises:
            As :meth:`fetch`, for the first that could not be had; those that were loaded until then stay loaded.
        """
        self._check_open()
        if isinstance(names, str):
            raise ConfigurationError(f"names={names!r}: give a list of names, or fetch one by fetch()", names=names)
        if self.name in names:
            raise ConfigurationError(f"agent {self.name!r} can't fetch itself", agent=self.name)
        return self._follower.fetch(names, label, self._deadline(timeout))

    def unload(self, name: str) -> None:
        """Remove a peer from the NIXL agent, and follow it no more. Transfers to it end.

        Raises:
            UnknownPeerError: None of that name is loaded.
        """
        self._check_open()
        is_loaded = self._remote_agents.peer(name) is not None
        self._follower.forget(name)
        if not is_loaded:
            raise UnknownPeerError(f"agent {self.name!r} has not loaded a peer {name!r}", agent=name)

    def peer(self, name: str) -> NixlPeer:
        """Return the loaded peer of that name.

        Raises:
            UnknownPeerError: None is loaded: it was not fetched, left, or could not be loaded again (the log says why).
        """
        peer = self._remote_agents.peer(name)
        if peer is None:
            raise UnknownPeerError(
                f"agent {self.name!r} has no peer {name!r} loaded; it has {sorted(self.peers())[:8]}. "
                f"Call fetch({name!r}), or wait for its PeerJoined",
                agent=name,
            )
        return peer

    def peers(self) -> dict[str, NixlPeer]:
        """Return the peers that are loaded in the NIXL agent through this adapter, by name."""
        return self._remote_agents.peers()

    def listings(self) -> DirectoryView:
        """Return who else is there, as last heard from the store, with the age of that knowledge; asks nobody."""
        self._check_open()
        return self._follower.announcer.view()

    def watch(
        self,
        pattern: str = "*",
        /,
        *,
        attributes: Mapping[str, str] | None = None,
        include_nixl: bool = False,
        **equal: str,
    ) -> DirectoryWatch:
        """Watch the other agents: those that are there (``PeerJoined``), ``Synced``, then who comes, changes and goes.

        Taking events from it, or waiting for one, keeps the peers that were fetched up to date, whether or not they
        match: this happens in the reader's thread, and is done when the event of it is returned. So at the
        ``PeerJoined`` of a peer that was restarted, transfers to it work again (if it has not left again since, of
        which the next events tell). A store in trouble may hold a
        reader up for some 2 seconds.

        Args:
            pattern: Glob pattern of names.
            attributes: Attributes that agents must have, with these values.
            include_nixl: Whether to tell of NIXL's own agents. They have no lease, so one that died stays; and the
                store sends everything that is published under the namespace.
            **equal: More attributes, for those that are Python names: ``watch(role="prefill")``.

        Returns:
            A watch, to iterate over in a thread or an event loop; close it, or use it as a context manager.
        """
        self._check_open()
        return self._follower.announcer.watch(pattern, {**(attributes or {}), **equal}, include_nixl=include_nixl)

    def close(self, timeout: Timeout = DEFAULT, *, drain: float = DRAIN) -> None:
        """Withdraw, let others hear of it, and end the watches. Idempotent; never raises for a store that is away: its
        keys then vanish with the lease. The NIXL agent and what it has loaded stay as they are.

        Args:
            timeout: Seconds in all.
            drain: Seconds for others to hear of it, if anything was published.

        Raises:
            ConfigurationError: ``drain`` is negative, endless or not a number; the adapter stays open.
        """
        check_drain(drain)
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        let_go(self)
        deadline = self._deadline(timeout)
        self._follower.close(deadline)
        self._membership.close(drain, deadline)
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
        return f"<NixlAdapter {self.name!r}, {'closed' if self._closed else f'{len(self.peers())} peers'}>"

    def _check_open(self) -> None:
        if self._is_forked:
            raise ForkedError(f"the adapter of agent {self.name!r} belongs to the parent process", agent=self.name)
        if self._closed:
            raise ClosedError(f"the adapter of agent {self.name!r} is closed: call adapt() again", agent=self.name)

    def _deadline(self, timeout: Timeout) -> Deadline:
        return Deadline(self.timeout if timeout is DEFAULT else timeout, self._clock)

    def _after_fork(self) -> None:
        self._closed = self._is_forked = True
