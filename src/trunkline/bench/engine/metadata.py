"""What the benchmark asks of an engine whose exchange of metadata it measures; and ours."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from trunkline.bench.engine.contract import Messenger
from trunkline.bench.engine.trunkline import TrunklineMessenger
from trunkline.errors import UnknownPeerError

if TYPE_CHECKING:
    from trunkline.memory.descriptor import DescriptorList


class MetadataEngine(Messenger, Protocol):
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

    def load(self, data: bytes) -> None:
        """Load another worker's metadata."""
        ...

    def unload(self, name: str) -> None:
        """Undo :meth:`load`."""
        ...


class TrunklineMetadata(TrunklineMessenger):
    """Our agent."""

    is_published_at_once = True

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

    def load(self, data: bytes) -> None:
        self._agent.load_peer(data)

    def unload(self, name: str) -> None:
        self._agent.unload_peer(name)
