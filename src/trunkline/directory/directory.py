"""The directory: names, and what their agents published, over a store."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from trunkline.clock import SYSTEM_CLOCK, Clock, Deadline
from trunkline.directory.fetch import Fetch
from trunkline.directory.listing import list_names
from trunkline.directory.process import local_process
from trunkline.directory.session import Session
from trunkline.metadata.key import DEFAULT_LABEL, DEFAULT_NAMESPACE, MetadataKey, places
from trunkline.metadata.presence import Presence, decode_presence
from trunkline.store.contract import Get, Transaction

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from trunkline.directory.publication import Publication
    from trunkline.store.contract import Store


class Directory:
    """Finds agents by name, and opens sessions in which they publish. Any thread may call any method.

    It holds no connection, thread or state of its own: the store is the caller's to close.

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

    def open_session(
        self,
        name: str,
        *,
        incarnation: str,
        ttl: float = 30.0,
        attributes: Mapping[str, str] | None = None,
        backends: Sequence[str] = (),
        takeover: bool = False,
        timeout: float | None = 30.0,
    ) -> Session:
        """Claim a name: put a presence record and NIXL's marker, on a lease that is kept alive.

        If another agent holds the name it is waited for, at most until its lease has had time to run out. A holder
        whose process has ended on this machine is replaced at once.

        Args:
            name: The agent's name.
            incarnation: 32 hexadecimal digits, random for each agent object.
            ttl: Seconds, at least 2, after which the name is free if this process dies.
            attributes: Free pairs that others see and select by.
            backends: Names of the agent's backends.
            takeover: Replace a live holder, which finds its session lost.
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
        )
        key = MetadataKey(self._namespace, name)
        return Session(self._store, key, presence, ttl=ttl, takeover=takeover, timeout=timeout, clock=self._clock)

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
        keys = tuple(MetadataKey(place, name, label) for place in places(self._namespace))
        return Fetch(self._store, keys, except_incarnations, self._clock).run(Deadline(timeout, self._clock))

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
