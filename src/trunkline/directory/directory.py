"""The directory: names, and what their agents published, over a store."""

from __future__ import annotations

import time
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from trunkline.clock import SYSTEM_CLOCK, Clock, Deadline
from trunkline.config import DEFAULT_TTL
from trunkline.directory.fetch import Fetch, fetch_each
from trunkline.directory.listing import list_names
from trunkline.directory.publisher import Publisher
from trunkline.directory.sharing import close_observer, open_observer
from trunkline.errors import ConfigurationError
from trunkline.metadata.key import DEFAULT_LABEL, DEFAULT_NAMESPACE, MetadataKey, places
from trunkline.metadata.presence import Presence, decode_presence
from trunkline.process import local_process
from trunkline.store.contract import Get, Transaction

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from trunkline.directory.observer import Observer
    from trunkline.directory.publication import Publication
    from trunkline.directory.watch import DirectoryWatch
    from trunkline.store.contract import Store


class Directory:
    """Finds agents by name, and opens publishers for them. Any thread may call any method.

    The store is the caller's to close. Publishers and watches of one process share an observer (one thread, with a
    handle of the store that is its own), which ends with the last of them.

    Args:
        store: Where keys are kept.
        namespace: Key prefix of the deployment. Under the default, agents are also looked for where NIXL
            writes by default (one slash more).
        clock: Measures deadlines; for tests.

    Raises:
        ConfigurationError: The namespace does not start with a slash, is too long, or holds control characters.
    """

    def __init__(self, store: Store, *, namespace: str = DEFAULT_NAMESPACE, clock: Clock = SYSTEM_CLOCK) -> None:
        MetadataKey(namespace, "any")  # checks the namespace
        self._store = store
        self._namespace = namespace
        self._clock = clock

    @property
    def namespace(self) -> str:
        return self._namespace

    def open_publisher(
        self,
        name: str,
        *,
        incarnation: str,
        ttl: float = DEFAULT_TTL,
        attributes: Mapping[str, str] | None = None,
        backends: Sequence[str] = (),
        takeover: bool = False,
        timeout: float | None = 30.0,
    ) -> Publisher:
        """Claim a name: put a presence record and NIXL's marker, on a lease that is kept alive.

        If another agent holds the name it is waited for, at most until its lease has had time to run out. A holder
        whose process has ended on this machine is replaced at once.

        Args:
            name: The agent's name.
            incarnation: 32 hexadecimal digits, random for each agent object.
            ttl: Seconds, at least 2, after which the name is free if this process dies.
            attributes: Free pairs that others see and select by.
            backends: Names of the agent's backends.
            takeover: Replace a live holder, which finds its name lost.
            timeout: Seconds; None waits for ever for the store (not for the holder). Up to a second more may go
                into giving back the lease of a claim that failed.

        Raises:
            ConfigurationError: An argument breaks its rules.
            AgentNameInUseError: Another agent holds the name and lives.
            StoreError: The store failed.
        """
        presence = Presence(
            incarnation=incarnation,
            process=local_process(),
            software=_software(),
            backends=tuple(backends),
            attributes=dict(attributes or {}),
            opened_at=round(time.time(), 3),
        )
        key = MetadataKey(self._namespace, name)
        observer = open_observer(self._store, self._namespace, clock=self._clock)
        try:
            return Publisher(
                self._store,
                key,
                presence,
                ttl=ttl,
                takeover=takeover,
                timeout=timeout,
                clock=self._clock,
                observer=observer,
            )
        except BaseException:
            close_observer(observer)
            raise

    def watch(
        self,
        pattern: str = "*",
        /,
        *,
        attributes: Mapping[str, str] | None = None,
        include_nixl: bool = False,
        **equal: str,
    ) -> DirectoryWatch:
        """Watch who is there: everybody who is (``PeerJoined``), ``Synced``, then who comes, changes and goes.

        All watches and publishers of a process share one watch of the store, over small records. With
        ``include_nixl`` another one brings everything that is published under the namespace, metadata and all.

        Args:
            pattern: Glob pattern of names.
            attributes: Attributes that agents must have, with these values.
            include_nixl: Whether to tell of NIXL's own agents; they have no lease, so one that died stays.
            **equal: More attributes, for those that are Python names: ``watch(role="prefill")``.

        Returns:
            A watch to iterate over; close it, or use it as a context manager.
        """
        observer = open_observer(self._store, self._namespace, clock=self._clock)
        try:
            return observer.watch(
                pattern,
                {**(attributes or {}), **equal},
                include_nixl=include_nixl,
                on_close=lambda: close_observer(observer),
            )
        except BaseException:
            close_observer(observer)
            raise

    @contextmanager
    def observe(self) -> Iterator[Observer]:
        """Give the observer that this process shares, for as long as the context lasts."""
        observer = open_observer(self._store, self._namespace, clock=self._clock)
        try:
            yield observer
        finally:
            close_observer(observer)

    def fetch(
        self,
        name: str,
        *,
        label: str = DEFAULT_LABEL,
        timeout: float | None = 30.0,
        except_incarnations: Collection[str] = (),
    ) -> Publication:
        """Return what an agent published, waiting for it if it is not there yet.

        Args:
            name: The agent's name.
            label: Which part of its metadata.
            timeout: Seconds; None waits for ever. Up to half a second more may go into naming similar agents.
            except_incarnations: Incarnations known to be gone, whose publications don't count.

        Raises:
            AgentNotFoundError: Nothing was published in time; the message names similar agents.
            ConfigurationError: No agent or label can be called that.
            MetadataError: The agent's record can't be read, or only by a newer version.
            StoreError: The store failed, or was unreachable at the start and for all of ``timeout``.
        """
        [found] = self.fetch_many([name], label=label, timeout=timeout, except_incarnations=except_incarnations)
        return found

    def fetch_many(
        self,
        names: Iterable[str],
        *,
        label: str = DEFAULT_LABEL,
        timeout: float | None = 30.0,
        except_incarnations: Collection[str] = (),
    ) -> Iterator[Publication]:
        """Yield what several agents published, each as it is found: first all that is there, in the order of the names.

        What is there takes one read for 42 agents, or for 21 under the default namespace.

        Args:
            names: The agents' names; what is given twice is fetched once.
            label: Which part of their metadata.
            timeout: Seconds from this call on, for all together; None waits for ever.
            except_incarnations: Incarnations of any of them known to be gone, whose publications don't count.

        Raises:
            AgentNotFoundError, MetadataError, StoreError: As :meth:`fetch`, for the first that can't be had.
            ConfigurationError: No agent or label can be called that.
        """
        if isinstance(names, str):
            raise ConfigurationError(f"names={names!r}: give a list of names, or fetch one by fetch()", names=names)
        fetches = [
            Fetch(
                self._store,
                tuple(MetadataKey(place, name, label) for place in places(self._namespace)),
                except_incarnations,
                self._clock,
            )
            for name in dict.fromkeys(names)
        ]
        return fetch_each(fetches, Deadline(timeout, self._clock))

    def names(self, *, timeout: float | None = 30.0) -> list[str]:
        """Return the names of all agents under the namespace, Trunkline's and NIXL's own, sorted.

        Agents of NIXL's own that died are among them: their keys never vanish.

        Raises:
            StoreError: The store failed.
        """
        return list_names(self._store, self._namespace, timeout=timeout)

    def presence(self, name: str, *, timeout: float | None = 30.0) -> Presence | None:
        """Return an agent's presence record; None if there is none of that name, or it is NIXL's own.

        Raises:
            ConfigurationError: No agent can be called that.
            MetadataDecodeError: The record can't be decoded.
            StoreError: The store failed.
        """
        keys = [MetadataKey(place, name) for place in places(self._namespace)]
        reads = self._store.transact(Transaction((), tuple(Get(key.presence) for key in keys)), timeout=timeout).reads
        records = [entry.value for read in reads for entry in read]
        return decode_presence(records[0]) if records else None


def _software() -> str:
    try:
        return f"trunkline {version('trunkline')}"
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "trunkline"
