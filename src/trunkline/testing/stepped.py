"""A backend whose requests, peers and notifications a test moves by hand: for state machines above a backend."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from trunkline.backend.contract import Capabilities, ConnectionInfo, Operation, Posting, Status
from trunkline.backend.plugins.loopback import LoopbackBackend, LoopbackRequest
from trunkline.errors import MetadataDecodeError, PeerGoneError, TransferStateError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.model import RemoteKeys

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trunkline.backend.contract import BackendPeer, Request, Slots


_NOTHING = Posting(
    Operation.WRITE,
    np.empty(0, np.uint64),
    np.empty(0, np.uint64),
    np.empty(0, np.uint64),
    np.empty(0, np.int32),
    np.empty(0, np.int32),
)


class SteppedBackend(LoopbackBackend):
    """Reaches other stepped backends of the same process; nothing moves until the test says so.

    ``in_flight`` lists the posted requests, oldest first: call their ``advance``, ``complete``, ``fail`` or ``drain``.

    Args:
        agent_name: For messages; peers reach this backend by it.

    Attributes:
        sent: What was delivered to peers: (peer, payload, failure mark).
    """

    name = "STEPPED"
    capabilities = Capabilities(
        frozenset({MemoryKind.DRAM}), frozenset({MemoryKind.DRAM}), notifications=True, progress=True
    )

    def __init__(self, agent_name: str) -> None:
        super().__init__(agent_name)
        self.changed = threading.Condition()
        self.in_flight: list[SteppedRequest] = []
        self.sent: list[tuple[SteppedPeer | None, bytes, bool]] = []
        self._finished: list[SteppedRequest] = []
        self._failed_peers: list[SteppedPeer] = []
        self._inbox: list[tuple[bytes, bool]] = []
        self._dropped = 0
        self._is_woken = False

    def connection_info(self) -> ConnectionInfo:
        """Return bytes that :meth:`load_peer` of another stepped backend takes."""
        return ConnectionInfo(b"stepped")

    def remote_keys(self, slots: Slots) -> RemoteKeys:
        """Return one key per slot."""
        return RemoteKeys.of([b"key %d" % slot for slot in slots.tolist()])

    def load_peer(self, name: str, info: ConnectionInfo) -> SteppedPeer:
        """Take a peer's connection info. Raises MetadataDecodeError."""
        if info != b"stepped":
            raise MetadataDecodeError(f"peer {name!r}: {info!r} is not a stepped backend's", field="connection info")
        return SteppedPeer(self, name)

    def prepare(self, posting: Posting, peer: BackendPeer | None) -> SteppedRequest:
        """Bind a posting to a peer, or to the agent itself."""
        self.check_open()
        assert peer is None or isinstance(peer, SteppedPeer)
        return SteppedRequest(self, posting, peer)

    def notify(self, peer: BackendPeer, payload: bytes, *, failure: bool = False) -> Request:
        """Record a payload in ``sent``; its request is DONE."""
        assert isinstance(peer, SteppedPeer)
        request = SteppedRequest(self, _NOTHING, peer)
        request.post(payload)
        request.failure = failure
        request.complete()
        return request

    def receive(self, payload: bytes, *, failure: bool = False) -> None:
        """Let a notification arrive here."""
        self._change(lambda: self._inbox.append((payload, failure)))

    def overflow(self, dropped: int) -> None:
        """Pretend that notifications were dropped."""
        self._dropped += dropped

    def take_notifications(self) -> tuple[list[tuple[bytes, bool]], int]:
        """Return what arrived and how many were dropped."""
        with self.changed:
            taken, self._inbox = self._inbox, []
            dropped, self._dropped = self._dropped, 0
        return taken, dropped

    def progress(self) -> bool:
        """Nothing moves by itself; return whether there is something to take."""
        return bool(self._finished or self._inbox or self._dropped)

    def run(self, until: float) -> None:
        """Sleep until something is there to take, ``wake`` or ``until``."""
        with self.changed:
            self.changed.wait_for(
                lambda: self._is_woken or self._finished or self._failed_peers or self._inbox or self._is_closed,
                max(0.0, until - time.monotonic()),
            )
            self._is_woken = False

    def wake(self) -> None:
        """End ``run``."""
        self._change(lambda: setattr(self, "_is_woken", True))

    def take_finished(self) -> list[Request]:
        """Return the requests that became quiet unreported."""
        with self.changed:
            taken, self._finished = self._finished, []
        return [*taken]

    def take_failed_peers(self) -> list[BackendPeer]:
        """Return the peers that :meth:`SteppedPeer.break_connection` broke."""
        with self.changed:
            taken, self._failed_peers = self._failed_peers, []
        return [*taken]

    def close(self) -> None:
        """Fail what is in flight. Idempotent."""
        for request in list(self.in_flight):
            request.fail("the backend was closed")
        super().close()
        self.wake()

    def has_ended(self, request: SteppedRequest) -> None:
        """Take an ended request out of flight and keep it to be reported."""

        def change() -> None:
            self.in_flight.remove(request)
            self._finished.append(request)

        self._change(change)

    def has_failed(self, peer: SteppedPeer) -> None:
        """Keep a failed peer to be reported."""
        self._change(lambda: self._failed_peers.append(peer))

    def report(self, request: SteppedRequest) -> None:
        """A request's own poll or wait has seen its end."""
        with self.changed:
            if request in self._finished:
                self._finished.remove(request)

    def _change(self, change: Callable[[], object]) -> None:
        with self.changed:
            change()
            self.changed.notify_all()


class SteppedPeer:
    """A peer in the same process, whose connection the test breaks and whose answers it withholds.

    Attributes:
        answers: Whether :meth:`connect` succeeds.
    """

    obstacle: str | None = None
    transports: tuple[str, ...] = ("stepped/memory",)

    def __init__(self, backend: SteppedBackend, name: str) -> None:
        self.name = name
        self.failure: str | None = None
        self.answers = True
        self.is_closed = False
        self._backend = backend

    def load_segments(self, kind: MemoryKind, segments: NDArray[np.uint64], keys: RemoteKeys) -> Slots:
        """Make the segments usable; a key that is not a stepped backend's is refused."""
        for row, key in enumerate(keys):
            if not key.startswith(b"key "):
                raise MetadataDecodeError(f"peer {self.name!r}: remote key {row} is {key!r}", field="remote key")
        return self._backend.register(kind, segments)

    def unload_segments(self, slots: Slots) -> None:
        """Forget the segments."""
        self._backend.deregister(slots)

    def connect(self, timeout: float) -> None:
        """Raise PeerGoneError unless the test lets the peer answer."""
        if not self.answers:
            raise PeerGoneError(f"peer {self.name!r} did not answer within {timeout:g} s", peer=self.name)
        self.failure = None

    def abort(self, reason: str) -> None:
        """Fail what is in flight to this peer."""
        self.failure = reason
        for request in list(self._backend.in_flight):
            if request.peer is self:
                request.fail(reason)

    def break_connection(self, reason: str = "Connection reset by remote peer") -> None:
        """Let the connection break: everything in flight fails, and the backend reports the peer."""
        self.abort(reason)
        self._backend.has_failed(self)

    def close(self) -> None:
        """Fail what is in flight to this peer."""
        self.abort("the peer was closed")
        self.is_closed = True


class SteppedRequest(LoopbackRequest):
    """A request that stays in progress until the test ends it.

    Attributes:
        posted: How many times it was posted.
        notification: What the last post promised to deliver.
        is_stopping: Whether :meth:`stop` was called since the last post.
    """

    def __init__(self, backend: SteppedBackend, posting: Posting, peer: SteppedPeer | None) -> None:
        super().__init__(backend, posting)
        self.peer = peer
        self.posted = 0
        self.notification: bytes | None = None
        self.failure = False
        self.is_stopping = False
        self._stepped = backend

    def post(self, notification: bytes | None = None) -> Status:
        """Become IN_PROGRESS."""
        if self.status == Status.IN_PROGRESS:
            raise TransferStateError("the request is already in progress")
        self.begin()
        self.notification, self.is_stopping = notification, False
        self.posted += 1
        if self.peer is not None:
            self.peer.failure = None
        self._stepped.in_flight.append(self)
        return self.status

    def poll(self) -> Status:
        """Return the status; an end counts as reported."""
        if self.status != Status.IN_PROGRESS:
            self._stepped.report(self)
        return self.status

    def wait(self, until: float) -> Status:
        """Sleep until the test ends the request or ``until``."""
        with self._stepped.changed:
            self._stepped.changed.wait_for(
                lambda: self.status != Status.IN_PROGRESS, max(0.0, until - time.monotonic())
            )
        return self.poll()

    def stop(self) -> None:
        """Remember it; the test drains."""
        self.is_stopping = True

    def complete(self) -> None:
        """Move what is left, deliver the notification, become DONE."""
        self.advance(self.rows)

    def drain(self) -> None:
        """End what :meth:`stop` stopped: STOPPED, or DONE if nothing was left."""
        assert self.is_stopping, "nobody stopped it"
        self.end(Status.DONE if self.completed == self.rows else Status.STOPPED)

    def fail(self, reason: str) -> None:
        """Become FAILED."""
        self.end(Status.FAILED, reason)

    def end(self, status: Status, reason: str = "") -> None:
        """Become quiet, to be reported once."""
        if status == Status.DONE and self.notification is not None:
            self._stepped.sent.append((self.peer, self.notification, self.failure))
        super().end(status, reason)
        self._stepped.has_ended(self)
