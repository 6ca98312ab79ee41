"""What a backend is: it registers memory, posts requests and is polled. Nothing here blocks on a network
or device except where ``wait``, ``connect`` or ``run`` say so.

The required part is :class:`Backend` and :class:`Request`. Optional parts are protocols of their own, and
:class:`Capabilities` says as data which of them a backend has (the contract suite in
``trunkline.testing`` checks that the two agree).

Slots are small integers that a backend hands out for registered segments (local) and for the remote
segments of one peer; plans refer to them, so that posting needs no look-up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, NewType, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from trunkline.memory.kind import MemoryKind
    from trunkline.metadata.model import RemoteKeys

    Addresses: TypeAlias = NDArray[np.uint64]
    Slots: TypeAlias = NDArray[np.int32]

ConnectionInfo = NewType("ConnectionInfo", bytes)
"""Opaque bytes that let a peer reach one backend of an agent."""


class Operation(IntEnum):
    """What the initiator does with the target's memory."""

    READ = 0
    WRITE = 1


class Status(IntEnum):
    """How a request stands. Only IDLE and the negative and DONE values are quiet: the backend touches no memory."""

    FAILED = -2
    STOPPED = -1
    """Drained after :meth:`Request.stop` before everything was posted."""
    IDLE = 0
    DONE = 1
    IN_PROGRESS = 2


class Cost(NamedTuple):
    """What a transfer takes on a backend: ``start + row * rows + bytes / rate`` seconds.

    Backends that could do the same transfer are compared by it, so figures of one machine will do.

    Attributes:
        start: Seconds, whatever is moved.
        row: Seconds for each row.
        rate: Bytes in a second.
    """

    start: float = 20e-6
    row: float = 3e-6
    rate: float = 1e9

    def seconds(self, rows: int, nbytes: int) -> float:
        """Return what so many rows of so many bytes in all take."""
        return self.start + self.row * rows + nbytes / self.rate


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do.

    Attributes:
        local_kinds: Kinds of memory it registers on this side of a transfer.
        remote_kinds: Kinds it reaches at a peer (then it is a :class:`RemoteBackend`).
        own_kinds: Kinds it reaches as the far side of a transfer within the agent: files, objects.
        notifications: Whether it carries notifications (then it is a :class:`NotifyingBackend`); those of transfers
            on a backend that carries none are sent through one that does, once the data is there.
        progress: Whether it has to be driven (then it is a :class:`ProgressingBackend`).
        keyless: Whether it needs neither registrations nor keys of its own: it moves whatever another backend of the
            agent has registered, and reaches all of a peer that is offered through another backend. Slots in its
            postings are that backend's, for it to ignore.
        queries: Whether it can be asked about files or objects (then it is a :class:`QueryableBackend`).
        cost: What transfers take.
    """

    local_kinds: frozenset[MemoryKind]
    remote_kinds: frozenset[MemoryKind] = frozenset()
    own_kinds: frozenset[MemoryKind] = frozenset()
    notifications: bool = False
    progress: bool = False
    keyless: bool = False
    queries: bool = False
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True, slots=True)
class Posting:
    """Matched, bounds-checked operations, one per row: row i moves ``length[i]`` bytes between
    ``local_address[i]`` (in the segment of slot ``local_slot[i]``) and ``remote_address[i]`` (``remote_slot[i]``).

    All arrays are C-contiguous, of equal length and not changed afterwards. ``owner`` is kept alive by the
    request until it is quiet.
    """

    operation: Operation
    local_address: Addresses
    remote_address: Addresses
    length: Addresses
    local_slot: Slots
    remote_slot: Slots
    owner: Any = field(default=None, compare=False)


class Request(Protocol):
    """A posting bound to a peer; posted any number of times, one after the other.

    A finished request is reported once: by its own ``poll``/``wait``, or by
    :meth:`ProgressingBackend.take_finished`, whichever comes first. Both may be called by any thread; the status
    stays readable until the next ``post``. While IN_PROGRESS the backend keeps the request itself alive,
    and with it ``Posting.owner``, also if everybody else drops it.
    """

    owner: Any
    """Free for the caller: the engine keeps its handle here."""

    def post(self, notification: bytes | None = None) -> Status:
        """Start. ``notification`` (an encoded payload) is delivered to the target after the data is visible
        there. Returns DONE, FAILED or IN_PROGRESS.
        """
        ...

    def poll(self) -> Status:
        """Drive progress once and return the status."""
        ...

    def wait(self, until: float) -> Status:
        """Drive progress until the request is quiet or ``time.monotonic()`` reaches ``until``; return the status."""
        ...

    def stop(self) -> None:
        """Post no more of it; what is posted drains (STOPPED, or DONE if all had been posted)."""
        ...

    @property
    def reason(self) -> str:
        """Why it FAILED, in the transport's words; else empty."""
        ...

    @property
    def completed(self) -> int:
        """How many leading rows are known to have arrived (all of them when DONE)."""
        ...

    @property
    def post_ns(self) -> int:
        """How long the last ``post`` call took, in nanoseconds."""
        ...

    @property
    def total_ns(self) -> int:
        """Nanoseconds from the last ``post`` until the request was seen quiet; 0 before that."""
        ...


@runtime_checkable
class Backend(Protocol):
    """Required of every backend. Any thread may call any method."""

    @property
    def name(self) -> str:
        """The name in metadata (``UCX``) and settings; upper case."""
        ...

    @property
    def capabilities(self) -> Capabilities: ...

    def register(self, kind: MemoryKind, segments: NDArray[np.uint64], names: Sequence[str] = ()) -> Slots:
        """Register N×3 segments (address, length, device); all or none.

        Args:
            kind: Their kind of memory. For FILE the address is an offset and the device an open file's descriptor
                (the backend duplicates it); for OBJECT the address is an offset and the device tells objects apart.
            segments: The segments.
            names: For OBJECT each one's key, for FILE its path where it is not open yet or to name it in messages;
                empty where there are none.

        Raises:
            MemoryRegistrationError: One can't be registered; none was.
        """
        ...

    def deregister(self, slots: Slots) -> None:
        """Forget registered segments; the caller has made sure that nothing posted uses them."""
        ...

    def prepare(self, posting: Posting, peer: BackendPeer | None) -> Request:
        """Bind a posting to a peer (None: within this agent). Moves nothing."""
        ...

    def close(self) -> None:
        """End everything; requests in flight become FAILED and quiet. Idempotent."""
        ...


class BackendPeer(Protocol):
    """One backend's side of a loaded peer."""

    name: str

    def load_segments(self, kind: MemoryKind, segments: NDArray[np.uint64], keys: RemoteKeys) -> Slots:
        """Make N×3 remote segments usable. Keys are checked first: MetadataDecodeError for hostile ones."""
        ...

    def unload_segments(self, slots: Slots) -> None: ...

    def connect(self, timeout: float) -> None:
        """Wire up and prove that the peer answers. Raises PeerGoneError or DeadlineError."""
        ...

    def abort(self, reason: str) -> None:
        """Close the connection by force: everything posted to this peer becomes quiet now, as FAILED with
        ``reason``. The next use makes a new connection from the kept connection info.
        """
        ...

    @property
    def failure(self) -> str | None:
        """Why the connection is broken, or None. Cleared when a new one is made."""
        ...

    @property
    def obstacle(self) -> str | None:
        """Why this backend can't be used to reach the peer now, in words, or None. Asked whenever a transfer is
        planned, so it does not wait; the next backend in the order of preference is then taken.
        """
        ...

    @property
    def transports(self) -> tuple[str, ...]:
        """The transports really chosen (``"cma/memory"``, ``"tcp/lo"``); empty before the first use."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class RemoteBackend(Backend, Protocol):
    """A backend that reaches other agents."""

    def connection_info(self) -> ConnectionInfo: ...

    def remote_keys(self, slots: Slots) -> RemoteKeys:
        """Return the keys that let peers reach these segments."""
        ...

    def load_peer(self, name: str, info: ConnectionInfo) -> BackendPeer:
        """Take a peer's connection info. It is checked: MetadataDecodeError for hostile bytes."""
        ...


@runtime_checkable
class NotifyingBackend(Backend, Protocol):
    """A backend that carries notifications. Payloads are NIXL's, encoded and decoded by ``trunkline.metadata``."""

    def notify(self, peer: BackendPeer, payload: bytes, *, failure: bool = False) -> Request:
        """Send a payload and return its (posted) request. ``failure`` marks it as news of a transfer that did
        not succeed; only Trunkline peers understand that.
        """
        ...

    def take_notifications(self) -> tuple[list[tuple[bytes, bool]], int]:
        """Return the payloads that arrived, each with its failure mark, and how many were dropped because the
        bounded queue was full (counted once).
        """
        ...


@runtime_checkable
class ProgressingBackend(Backend, Protocol):
    """A backend that has to be driven."""

    def progress(self) -> bool:
        """Drive it once, without waiting; return whether finished requests or notifications can be taken."""
        ...

    def run(self, until: float) -> None:
        """Drive it, asleep while idle and out of the way while others poll, until something is there to
        take, :meth:`wake` is called, or ``time.monotonic()`` reaches ``until``. One thread at a time.
        """
        ...

    def wake(self) -> None:
        """Make :meth:`run` return soon (also if it is called only later)."""
        ...

    def take_finished(self) -> list[Request]:
        """Return the requests that became quiet and that nobody's ``poll`` or ``wait`` has reported."""
        ...

    def take_failed_peers(self) -> list[BackendPeer]:
        """Return the peers whose connection broke since the last call."""
        ...


@runtime_checkable
class QueryableBackend(Backend, Protocol):
    """A backend that can be asked about files or objects."""

    def query(self, kind: MemoryKind, names: Sequence[str]) -> list[Mapping[str, str] | None]:
        """Say of each path or key what is there: ``size`` in bytes, ``mtime`` in seconds of the epoch, and what the
        backend adds; None for what is not there. May wait for the device or the store.

        Raises:
            BackendError: It could not be found out, for another reason than that nothing is there.
        """
        ...
