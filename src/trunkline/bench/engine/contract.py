"""What the benchmark asks of an engine: register, find each other, prepare, post, wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trunkline.backend.contract import Operation
    from trunkline.memory.descriptor import DescriptorList


class Request(Protocol):
    """A transfer that can be posted again and again. One thread at a time."""

    def post(self) -> None:
        """Start it; returns at once."""
        ...

    def poll(self) -> bool:
        """Return whether it is done. Raises TrunklineError if it failed."""
        ...

    def wait(self, timeout: float) -> None:
        """Wait until it is done.

        Raises:
            DeadlineError: It is not after so many seconds.
            TrunklineError: It failed.
        """
        ...


class Messenger(Protocol):
    """One worker's participant, as far as messages and turns go."""

    def notify(self, peer: str, payload: bytes) -> None:
        """Send a message."""
        ...

    def wait_notification(self, timeout: float) -> bytes:
        """Wait for a message and return it.

        Raises:
            DeadlineError: None came.
        """
        ...

    def rest(self) -> None:
        """Others are measured now: keep off the processor."""
        ...

    def wake(self) -> None:
        """This worker's team is measured now."""
        ...

    def close(self) -> None:
        """Take everything back. Idempotent."""
        ...


class Engine(Messenger, Protocol):
    """One worker's participant. Requests of several threads may be made and posted at once.

    Attributes:
        name: ``trunkline`` or ``nixl``.
    """

    name: str

    def register(self, descriptors: DescriptorList, keys: Sequence[str] = ()) -> None:
        """Register memory, files (``keys`` are their paths) or objects (their keys)."""
        ...

    def deregister(self, descriptors: DescriptorList) -> None:
        """Take memory back that was registered after :meth:`publish`, and that nothing uses any more."""
        ...

    def publish(self) -> bytes:
        """Let others find this worker; return what they must be handed for it, which may be nothing."""
        ...

    def load(self, name: str, handed: bytes, timeout: float) -> None:
        """Find another worker, with what it handed, and connect to it."""
        ...

    def match(self, peer: str, near: DescriptorList, far: DescriptorList) -> Any:
        """Look both sides of a transfer up, for :meth:`prepare`."""
        ...

    def prepare(self, operation: Operation, sides: Any) -> Request:
        """Make a request of what :meth:`match` gave."""
        ...

    def transport(self, peer: str) -> str:
        """Return what really carries the bytes to a peer that was used; the backend's name where it can't tell."""
        ...
