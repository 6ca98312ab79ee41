"""The part of an agent that has to do with moving bytes: reads and writes, what becomes of them, notifications."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from trunkline.agent.explanation import explain_work
from trunkline.agent.pair import PreparedPair, prepare_pair
from trunkline.clock import DEFAULT, Deadline, Timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trunkline.agent.explanation import Explanation
    from trunkline.agent.peer import Peer
    from trunkline.transfer.engine import Engine
    from trunkline.transfer.handle import TransferHandle
    from trunkline.transfer.inbox import Notification


class Transfers(ABC):
    """What ``Agent`` inherits. Any thread may call any method."""

    engine: Engine

    @abstractmethod
    def peer(self, name: str) -> Peer:
        """Return the loaded peer of that name."""

    @abstractmethod
    def _deadline(self, timeout: Timeout) -> Deadline: ...

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
        """Say which backend would move all blocks of a prepared pair now, or which one moves a transfer; and why.

        Moves nothing, and waits for nothing. What a transfer was made for it keeps; what the others could do is as it
        stands now.
        """
        if isinstance(request, PreparedPair):
            return request.explain()
        return explain_work(self.engine, request.target, request.work, taken=request.backends)

    def take_finished(self) -> list[TransferHandle]:
        """Return the tagged transfers that ended since the last call, each once. Returns at once, maybe empty."""
        return self.engine.take_finished()

    # -- notifications ------------------------------------------------------------------------------------------------

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

    # -- inside -------------------------------------------------------------------------------------------------------

    def _prepare(
        self, local: Any, remote: Any, peer: str | Peer | None, backend: str | Sequence[str] | None
    ) -> PreparedPair:
        self.engine.check_open()
        found = self.peer(peer) if isinstance(peer, str) else peer
        target = found.target if found is not None else None
        return prepare_pair(self.engine, local, remote, target, backend=backend)
