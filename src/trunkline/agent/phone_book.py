"""The part of an agent that has to do with the phone book: publish, find, watch, drain, and how all that stands."""

from __future__ import annotations

import threading
from abc import ABC
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from trunkline.agent.offer import parts_of
from trunkline.clock import DEFAULT, Clock, Deadline, Timeout
from trunkline.errors import ConfigurationError, DeadlineError, NoStoreError, TrunklineError
from trunkline.metadata.catalog import encode_catalog
from trunkline.metadata.codec import encode
from trunkline.metadata.key import DEFAULT_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trunkline.agent.follower import Follower
    from trunkline.agent.local_memory import LocalMemory
    from trunkline.agent.membership import Membership
    from trunkline.agent.offer import MemoryPart
    from trunkline.agent.peer import Peer
    from trunkline.agent.peers import Peers
    from trunkline.directory.view import DirectoryView
    from trunkline.directory.watch import DirectoryWatch
    from trunkline.transfer.engine import Engine

DRAIN = 0.1
"""Seconds that deregistering, draining and closing wait for peers to have heard of it: a watch event takes about a
millisecond on one network; the rest is margin."""


def check_drain(drain: float) -> None:
    """Refuse what is no time that peers could be given.

    Raises:
        ConfigurationError: It is negative, endless or not a number.
    """
    if not 0 <= drain <= threading.TIMEOUT_MAX:
        raise ConfigurationError(f"drain={drain}: give seconds for peers to hear of it, 0 for none", drain=drain)


@dataclass(frozen=True, slots=True)
class Health:
    """How an agent is, for probes.

    Attributes:
        is_live: Whether it works. Losing the store alone does not end that: what it knows goes on.
        is_ready: Whether others may start something with it: it works, has published, and is not draining.
        lost: Why others can't find it at present, or None. Unless another has its name it comes back by itself.
        store_age: Seconds since the store was last heard; 0 while it is connected, None without one.
        sessions: How many leases it has had, one after the other.
        peers: How many loaded peers can be used.
    """

    is_live: bool
    is_ready: bool
    lost: str | None
    store_age: float | None
    sessions: int
    peers: int


class PhoneBook(ABC):
    """What ``Agent`` inherits. Any thread may call any method."""

    name: str
    timeout: float | None
    engine: Engine
    _attributes: dict[str, str]
    _clock: Clock
    _lock: threading.RLock
    _memory: LocalMemory
    _peers: Peers
    _membership: Membership | None
    _follower: Follower | None
    _parts: dict[str, tuple[list[MemoryPart], bool]]
    """What the partial labels stand for, with whether they say how the agent is reached."""

    @property
    def attributes(self) -> Mapping[str, str]:
        """What peers see of it and select it by."""
        return self._attributes if self._membership is None else self._membership.publisher.attributes

    @property
    def lost(self) -> str | None:
        """Why other agents can't find this one at present, or None. It comes back by itself, unless another agent has
        taken its name.
        """
        return None if self._membership is None else self._membership.publisher.lost

    def publish(
        self,
        *,
        label: str = DEFAULT_LABEL,
        segments: MemoryPart | Sequence[MemoryPart] | None = None,
        connection_info: bool = False,
        timeout: Timeout = DEFAULT,
    ) -> int:
        """Let peers know of this agent and its memory; returns the store's revision once the store has answered.

        Peers that have loaded it get exactly the difference, by themselves. What is published already costs no write. A
        publication that fails because the store is away is made up for when it is back.

        Args:
            label: Which part of its metadata this is: ``metadata`` is everything that is registered now. Other labels
                hold what ``segments`` says; at a peer that fetches several they add up.
            segments: For another label: what :meth:`register` returned, views of it (all of that registration
                counts), or descriptor lists (the registered segments that hold them).
            connection_info: For another label: whether it says how the agent is reached. A peer needs that once.
            timeout: Seconds to wait for the store.

        Raises:
            NoStoreError: The agent has no store.
            ConfigurationError: ``metadata`` is reserved for everything; or another label would say nothing.
            NotRegisteredError: A segment is not registered.
            StoreError: The store could not be reached or refused.
            SupersededError: Another agent took the name.
            DeadlineError: Another thread was publishing all the time.
        """
        membership = self._require_membership()
        deadline = self._deadline(timeout)
        if label == DEFAULT_LABEL:
            if segments is not None or connection_info:
                raise ConfigurationError(
                    f"the label {DEFAULT_LABEL!r} is the full set, with connection info: give another label to publish "
                    "a part"
                )
        else:
            given = parts_of(segments)
            with self._lock:
                self._memory.metadata(given, connection_info=connection_info)  # refuses what can't be published
                self._parts[label] = (given, connection_info)
        return membership.publish(label, partial(self._describe, label), deadline)

    def withdraw(self, *, label: str | None = None, timeout: Timeout = DEFAULT) -> int:
        """Take back what was published, and keep the name; returns the store's revision.

        Args:
            label: Just this part; None for everything: peers then forget the agent.
            timeout: Seconds to wait for the store.

        Raises:
            As :meth:`publish`.
        """
        membership = self._require_membership()
        with self._lock:
            for each in list(self._parts) if label is None else [label]:
                self._parts.pop(each, None)
        return membership.withdraw(label, self._deadline(timeout))

    def update_attributes(self, attributes: Mapping[str, str], *, timeout: Timeout = DEFAULT) -> int:
        """Replace the attributes that peers see and select by, in one write; returns the store's revision.

        Args:
            attributes: All of them, at most 32, of at most 64 and 255 characters.
            timeout: Seconds to wait for the store.

        Raises:
            ConfigurationError: Too many, too long, or not strings.
            NoStoreError, StoreError, SupersededError, DeadlineError: As :meth:`publish`.
        """
        return self._require_membership().update(self._deadline(timeout), attributes=attributes)

    def fetch(
        self,
        name: str,
        *,
        label: str = DEFAULT_LABEL,
        require: Mapping[str, str] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Peer:
        """Find an agent by name and load it, waiting for it if it is not there yet.

        From then on it is kept up to date: what it publishes anew is loaded, what it takes back is refused, and a new
        incarnation under its name replaces it (see ``reload``). An incarnation that this agent has seen die is not
        returned: the next one is waited for.

        Args:
            name: The agent's name.
            label: Which part of its metadata; parts that are fetched one after the other add up.
            require: Attributes that it must have, with these values; also when it is loaded again.
            timeout: Seconds.

        Raises:
            NoStoreError: The agent has no store.
            AgentNotFoundError: Nobody of that name published in time (also a LookupError and a TimeoutError).
            PeerIncompatibleError: Its attributes are not what is required; nothing of it was loaded.
            MetadataDecodeError, MetadataMismatchError: What lies under the name can't be used.
            NoBackendError: There is no backend in common, or the label does not say how to reach it.
        """
        [peer] = self.fetch_many([name], label=label, require=require, timeout=timeout)
        return peer

    def fetch_many(
        self,
        names: Sequence[str],
        *,
        label: str = DEFAULT_LABEL,
        require: Mapping[str, str] | None = None,
        timeout: Timeout = DEFAULT,
    ) -> list[Peer]:
        """Find several agents by name and load them, as :meth:`fetch` does each, but with far fewer requests.

        Args:
            names: The agents' names.
            label: Which part of their metadata.
            require: Attributes that each must have, with these values; also when it is loaded again.
            timeout: Seconds for all together.

        Returns:
            The peers, in the order of the names.

        Raises:
            As :meth:`fetch`, for the first that could not be had. Those that were loaded until then stay loaded
            and are kept up to date: :meth:`peer` gives them.
        """
        self._require_membership()
        if isinstance(names, str):
            raise ConfigurationError(f"names={names!r}: give a list of names, or fetch one by fetch()", names=names)
        if self.name in names:
            raise ConfigurationError(
                f"agent {self.name!r} can't fetch itself: its own memory is at hand", agent=self.name
            )
        assert self._follower is not None
        return self._follower.fetch(names, label, require or {}, self._deadline(timeout))

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

        Of peers that were fetched it tells after they were brought up to date; and what the data path knows counts:
        one whose process is gone has left as ``UNREACHABLE``, long before its lease ends, and one whose lease ran out
        but that still answers is a ``PeerSuspect``.

        Args:
            pattern: Glob pattern of names.
            attributes: Attributes that agents must have, with these values.
            include_nixl: Whether to tell of NIXL's own agents. They have no lease, so one that died stays; and the
                store sends everything that is published under the namespace.
            **equal: More attributes, for those that are Python names: ``watch(role="prefill")``.

        Returns:
            A watch, to iterate over in a thread or an event loop; close it, or use it as a context manager.

        Raises:
            NoStoreError: The agent has no store.
        """
        self._require_membership()
        assert self._follower is not None
        return self._follower.announcer.watch(pattern, {**(attributes or {}), **equal}, include_nixl=include_nixl)

    def peers(self) -> DirectoryView:
        """Return who else is there, as last heard from the store, with the age of that knowledge; asks nobody.

        Raises:
            NoStoreError: The agent has no store.
        """
        self._require_membership()
        assert self._follower is not None
        return self._follower.announcer.view()

    def drain(self, timeout: Timeout = DEFAULT) -> None:
        """Go away in order: tell peers to start nothing new, and wait until this agent's own transfers have ended.

        Transfers that peers have under way go on: one-sided reads and writes are not seen here, so keep the memory
        registered until their notifications have come. The agent can still post transfers itself. ``close`` comes next.

        Args:
            timeout: Seconds in all.

        Raises:
            DeadlineError: Own transfers still run; the agent stays as draining.
            StoreError: The store could not be told.
        """
        self.engine.check_open()
        deadline = self._deadline(timeout)
        if self._membership is not None:
            self._membership.update(deadline, state="draining")
            self._membership.wait_heard(DRAIN, deadline)
        for handle in list(self.engine.active):
            try:
                handle.wait(deadline.remaining())
            except DeadlineError:
                raise DeadlineError(
                    f"agent {self.name!r} is draining, and {len(self.engine.active)} of its transfers still run after "
                    f"{deadline.elapsed:.1f} s, such as {handle!r}: cancel them, or wait longer",
                    agent=self.name,
                ) from None
            except TrunklineError:
                pass  # it ended; how is for its owner

    def health(self) -> Health:
        """Return how the agent is; asks nobody, waits for nothing, and never raises for an agent that is closed."""
        membership, follower = self._membership, self._follower
        publisher = None if membership is None else membership.publisher
        is_live = self.engine.is_working and not (publisher is not None and publisher.is_superseded)
        is_listed = publisher is not None and bool(publisher.labels) and publisher.state == "ready"
        return Health(
            is_live=is_live,
            is_ready=is_live and (is_listed or publisher is None),
            lost=self.lost,
            store_age=None if follower is None or not is_live else follower.announcer.view().age,
            sessions=0 if publisher is None else publisher.sessions,
            peers=sum(peer.gone is None for peer in self._peers.all()),
        )

    def _publish_again(self, drain: float, deadline: Deadline) -> None:
        """After memory was hidden: publish what is left of each label, and let peers hear of it."""
        if self._membership is not None:
            self._membership.publish_rest(self._describe_rest, deadline)
            self._membership.wait_heard(drain, deadline)

    def _describe_rest(self, label: str) -> tuple[bytes, bytes] | None:
        """As :meth:`_describe`, without what is registered no more; None if a partial label has nothing left to say."""
        with self._lock:
            if label != DEFAULT_LABEL:
                parts, connection_info = self._parts.pop(label, ([], False))  # none: another thread is withdrawing it
                parts = self._memory.remaining(parts)
                if not parts and not connection_info:
                    return None
                self._parts[label] = (parts, connection_info)
            return self._describe(label)

    def _describe(self, label: str) -> tuple[bytes, bytes]:
        """Return a label's metadata and the catalog as they are now."""
        with self._lock:
            if label == DEFAULT_LABEL:
                return self._full_metadata(), self._encoded_catalog()
            if label not in self._parts:
                raise ConfigurationError(f"the label {label!r} was withdrawn by another thread", label=label)
            parts, connection_info = self._parts[label]
            metadata = encode(self._memory.metadata(parts, connection_info=connection_info))
            return metadata, self._encoded_catalog()

    def _full_metadata(self) -> bytes:
        return encode(self._memory.metadata())

    def _encoded_catalog(self) -> bytes:
        """Return the catalog; empty for one that would name nothing."""
        catalog = self._memory.catalog()
        return encode_catalog(catalog) if catalog.tensors else b""

    def _deadline(self, timeout: Timeout) -> Deadline:
        return Deadline(self.timeout if timeout is DEFAULT else timeout, self._clock)

    def _require_membership(self) -> Membership:
        self.engine.check_open()
        if self._membership is None:
            raise NoStoreError(
                f"agent {self.name!r} has no store: pass store= or set NIXL_ETCD_ENDPOINTS; to try: trunkline etcd"
            )
        return self._membership
