"""What the benchmark asks of an engine whose exchange of metadata it measures; and ours."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from trunkline.errors import UnknownPeerError

if TYPE_CHECKING:
    from trunkline.agent.agent import Agent
    from trunkline.memory.descriptor import DescriptorList


class MetadataEngine(Protocol):
    """One worker's participant. One thread at a time.

    Attributes:
        is_published_at_once: Whether the store has what was published when the call that does it returns.
    """

    is_published_at_once: bool

    def register(self, regions: DescriptorList) -> None:
        """Register memory."""
        ...

    def deregister(self, regions: DescriptorList) -> None:
        """Take memory back that is not published any more."""
        ...

    def encode(self) -> bytes:
        """Return this worker's metadata."""
        ...

    def publish(self) -> None:
        """Put the metadata into the store."""
        ...

    def withdraw(self) -> None:
        """Take it out of the store."""
        ...

    def fetch(self, name: str, timeout: float) -> None:
        """Wait until another worker has published, and what it did is loaded.

        Raises:
            DeadlineError: It has not after so many seconds.
        """
        ...

    def forget(self, name: str) -> None:
        """Unload another worker, which is withdrawing."""
        ...

    def load(self, name: str, data: bytes) -> None:
        """Load another worker's metadata."""
        ...

    def unload(self, name: str) -> None:
        """Undo :meth:`load`."""
        ...

    def notify(self, name: str, payload: bytes) -> None:
        """Send a message."""
        ...

    def wait_notification(self, timeout: float) -> bytes:
        """Wait for a message and return it.

        Raises:
            DeadlineError: None came.
        """
        ...

    def rest(self) -> None:
        """Another engine is measured now: keep off the processor."""
        ...

    def wake(self) -> None:
        """This engine is measured now."""
        ...

    def close(self) -> None:
        """Take everything back. Idempotent."""
        ...


class TrunklineMetadata:
    """Our agent.

    Args:
        agent: Closed with this.
    """

    is_published_at_once = True

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def register(self, regions: DescriptorList) -> None:
        self._agent.register(regions)

    def deregister(self, regions: DescriptorList) -> None:
        self._agent.deregister(regions, drain=0)

    def encode(self) -> bytes:
        return self._agent.local_metadata()

    def publish(self) -> None:
        self._agent.publish()

    def withdraw(self) -> None:
        self._agent.withdraw()

    def fetch(self, name: str, timeout: float) -> None:
        self._agent.fetch(name, timeout=timeout)

    def forget(self, name: str) -> None:
        with suppress(UnknownPeerError):  # its withdrawal was heard of already
            self._agent.unload_peer(name)

    def load(self, name: str, data: bytes) -> None:  # noqa: ARG002 # the metadata says
        self._agent.load_peer(data)

    def unload(self, name: str) -> None:
        self._agent.unload_peer(name)

    def notify(self, name: str, payload: bytes) -> None:
        self._agent.notify(name, payload)

    def wait_notification(self, timeout: float) -> bytes:
        return self._agent.wait_notification(timeout=timeout).payload

    def rest(self) -> None:
        """Nothing: the agent's threads sleep when nothing is to be done."""

    def wake(self) -> None:
        """Nothing."""

    def close(self) -> None:
        self._agent.close(drain=0)
