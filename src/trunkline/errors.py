"""The one tree of errors.

    TrunklineError
    ├── ConfigurationError            a setting, argument or URL that can't be used (also ValueError)
    ├── ClosedError                   the object was closed
    ├── ForkedError                   the object belongs to the parent process
    ├── DeadlineError                 a waiting call ran out of time (also TimeoutError)
    ├── MemoryRegistrationError       registering or deregistering failed
    │   ├── UnsupportedBufferError    not a buffer we can take an address of (also TypeError)
    │   ├── DescriptorError           a descriptor list that is not well formed (also ValueError)
    │   ├── NotRegisteredError        a local range outside registered memory (also ValueError)
    │   ├── ReadOnlyMemoryError       memory that can't be filled (also ValueError)
    │   └── MemoryInUseError          deregistering under a posted transfer
    ├── MetadataError
    │   ├── MetadataDecodeError       bytes that are not what they should be (also ValueError)
    │   └── MetadataMismatchError     good bytes of another agent, or at odds with what is known
    ├── StoreError
    │   ├── NoStoreError              the agent was made without a store
    │   ├── StoreUnavailableError     no endpoint answered in time (retryable, also ConnectionError)
    │   ├── StoreAuthError            credentials, rights or certificates (also PermissionError)
    │   ├── StoreLimitError           the store refused a request as too large
    │   └── StoreRequestError         the store refused a request
    │       └── RevisionUnavailableError  the store holds that revision no more (or not yet)
    ├── DirectoryError
    │   ├── AgentNotFoundError        nobody of that name published in time (also LookupError, TimeoutError)
    │   ├── AgentNameInUseError       a live agent has the name
    │   ├── SessionLostError          our lease is gone, and our keys with it
    │   └── SupersededError           another agent took our name over
    ├── GroupError                    workers that act together
    │   ├── GroupFullError            other workers have the seats
    │   ├── GroupSizeError            workers don't agree how many they are (also ValueError)
    │   ├── WorkerLostError           workers died; ``ranks`` says which
    │   ├── WorkerLeftError           workers that are needed left in order; ``ranks`` says which
    │   ├── GroupFailedError          a worker gave up; ``rank`` and ``reason`` say who and why
    │   ├── SeatLostError             our lease is gone: the others count us as dead
    │   └── CollectiveMismatchError   workers made calls that don't go together (also ValueError)
    ├── BackendError
    │   ├── BackendUnavailableError   the backend can't be used here, and why
    │   └── NoBackendError            no backend both sides have can do this transfer
    ├── PeerError
    │   ├── UnknownPeerError          no peer of that name is loaded (also LookupError)
    │   ├── PeerGoneError             the peer is lost, withdrawn or replaced
    │   ├── PeerDrainingError         the peer is going away and takes nothing new
    │   ├── PeerIncompatibleError     the peer is not what ``require=`` asked for (also ValueError)
    │   ├── PeerUnreachableError      nobody answers at a TCP address (retryable, also ConnectionError)
    │   └── SegmentNotFoundError      the peer offers no memory there (also LookupError, ValueError)
    │       └── SegmentGoneError      the peer offered it and took it back
    ├── TransferError                 a posted transfer ended badly; ``failed`` says which blocks
    │   ├── TransferCancelledError
    │   └── TransferDeadlineError     (also TimeoutError)
    ├── TransferStateError            a call the transfer's state does not allow
    ├── ShapeMismatchError            two sides that don't fit each other (also ValueError)
    ├── NotificationOverflowError     notifications were dropped: says how many
    ├── VerificationError             bytes that arrived are not the bytes that were offered
    ├── TicketError                   a ticket that is none, or that its offer does not accept
    └── FileError                     a file to offer or register, or the place to take one to (also OSError)

``retryable`` is a promise: the same call, made again, may succeed without anything else changing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TrunklineError(Exception):
    """Base of the tree.

    Args:
        message: What was tried, on what, and what the caller can do.
        **context: The facts of the message, kept in ``context`` for programs (agent, key, endpoint,
            elapsed seconds ...). Never a secret.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.context: dict[str, Any] = context

    def __str__(self) -> str:
        return self.message


class ConfigurationError(TrunklineError, ValueError):
    """A setting, argument or URL can't be used."""


class ClosedError(TrunklineError):
    """The object was closed; make a new one."""


class ForkedError(TrunklineError):
    """The object was made before a fork and belongs to the parent; make a new one in the child."""


class DeadlineError(TrunklineError, TimeoutError):
    """A waiting call ran out of time. Nothing was cancelled."""

    retryable = True


class MemoryRegistrationError(TrunklineError):
    """Memory could not be registered or deregistered."""


class UnsupportedBufferError(MemoryRegistrationError, TypeError):
    """The object offers no stable, contiguous memory whose address can be taken."""


class DescriptorError(MemoryRegistrationError, ValueError):
    """A descriptor list is not well formed."""


class NotRegisteredError(MemoryRegistrationError, ValueError):
    """A local range does not lie within registered memory."""


class ReadOnlyMemoryError(MemoryRegistrationError, ValueError):
    """The memory may be read by transfers, not filled."""


class MemoryInUseError(MemoryRegistrationError):
    """Memory can't be deregistered while a posted transfer uses it."""

    retryable = True


class MetadataError(TrunklineError):
    """Metadata can't be used."""


class MetadataDecodeError(MetadataError, ValueError):
    """Bytes are not a valid encoding.

    Attributes:
        field: The field that is wrong.
        offset: Where in the input it starts, in bytes.
    """

    def __init__(self, message: str, *, field: str = "", offset: int = 0, **context: Any) -> None:
        super().__init__(message, field=field, offset=offset, **context)
        self.field = field
        self.offset = offset


class MetadataMismatchError(MetadataError):
    """Valid metadata, but of another agent than asked for, or at odds with what is loaded of this one."""


class StoreError(TrunklineError):
    """The store could not do what was asked."""


class NoStoreError(StoreError):
    """The agent has no store."""


class StoreUnavailableError(StoreError, ConnectionError):
    """No endpoint of the store answered in time."""

    retryable = True


class StoreAuthError(StoreError, PermissionError):
    """Wrong or missing credentials, a right that is missing, or a certificate that one side does not accept."""


class StoreLimitError(StoreError):
    """The request is larger than the store takes."""


class StoreRequestError(StoreError):
    """The store refused the request."""


class RevisionUnavailableError(StoreRequestError):
    """The store can't say how things were at that revision: it was compacted away, or is of another history."""


class DirectoryError(TrunklineError):
    """Publishing, finding or keeping a name failed."""


class AgentNotFoundError(DirectoryError, LookupError, TimeoutError):
    """Nobody of that name (and label) published before the deadline."""

    retryable = True


class AgentNameInUseError(DirectoryError):
    """A live agent has the name."""

    retryable = True


class SessionLostError(DirectoryError):
    """The lease ran out or was revoked; the agent's keys are gone with it."""


class SupersededError(DirectoryError):
    """Another agent took the name over."""


class GroupError(TrunklineError):
    """Workers that act together can't go on."""


class GroupFullError(GroupError):
    """Other workers have the seats of the group, or the one asked for."""

    retryable = True


class GroupSizeError(GroupError, ValueError):
    """Workers of one group were started for different numbers of workers."""


class WorkerLostError(GroupError):
    """Workers died, or were cut off for longer than their TTL.

    Attributes:
        ranks: Theirs.
    """

    def __init__(self, message: str, *, ranks: tuple[int, ...], **context: Any) -> None:
        super().__init__(message, ranks=ranks, **context)
        self.ranks = ranks


class WorkerLeftError(GroupError):
    """Workers that are needed left the group in order.

    Attributes:
        ranks: Theirs.
    """

    def __init__(self, message: str, *, ranks: tuple[int, ...], **context: Any) -> None:
        super().__init__(message, ranks=ranks, **context)
        self.ranks = ranks


class GroupFailedError(GroupError):
    """A worker gave up and said so.

    Attributes:
        rank: Its rank.
        reason: Why, in its own words.
    """

    def __init__(self, message: str, *, rank: int, reason: str, **context: Any) -> None:
        super().__init__(message, rank=rank, reason=reason, **context)
        self.rank = rank
        self.reason = reason


class SeatLostError(GroupError):
    """This worker's lease ran out or was revoked: the others count it as dead."""


class CollectiveMismatchError(GroupError, ValueError):
    """Workers made different calls at one point, or with values that don't go together."""


class BackendError(TrunklineError):
    """A backend failed."""


class BackendUnavailableError(BackendError):
    """The backend can't be used on this machine; the message says what is missing."""


class NoBackendError(BackendError):
    """No backend that both sides have can move these kinds of memory."""


class PeerError(TrunklineError):
    """A peer can't be used."""


class UnknownPeerError(PeerError, LookupError):
    """No peer of that name is loaded."""


class PeerGoneError(PeerError):
    """The peer is lost, withdrawn, or replaced by a new incarnation."""


class PeerDrainingError(PeerError):
    """The peer is going away: what is under way to it may end, nothing new is posted."""


class PeerIncompatibleError(PeerError, ValueError):
    """The peer's attributes are not those that ``require=`` asked for. No memory was touched.

    Attributes:
        differences: For each attribute that differs: (wanted, found), found being None where the peer has none.
    """

    def __init__(self, message: str, *, differences: dict[str, tuple[str, str | None]], **context: Any) -> None:
        super().__init__(message, differences=differences, **context)
        self.differences = differences


class PeerUnreachableError(PeerError, ConnectionError):
    """Nobody answers at that TCP address, or the connection broke."""

    retryable = True


class SegmentNotFoundError(PeerError, LookupError, ValueError):
    """The peer offers no memory under that name or in that range."""


class SegmentGoneError(SegmentNotFoundError):
    """The peer offered this memory and has taken it back since; plan the transfer anew."""


class TransferError(TrunklineError):
    """A posted transfer did not succeed. What its target's memory holds is undefined.

    Attributes:
        failed: Indices of the blocks (rows of the lists that were given) that may not have arrived;
            all of them where the backend can't tell.
        reason: The transport's own words.
    """

    def __init__(
        self,
        message: str,
        *,
        failed: NDArray[np.intp] | None = None,
        reason: str = "",
        **context: Any,
    ) -> None:
        super().__init__(message, reason=reason, **context)
        self.failed = failed
        self.reason = reason


class TransferCancelledError(TransferError):
    """The transfer was cancelled by its owner."""


class TransferDeadlineError(TransferError, TimeoutError):
    """The transfer's own deadline passed before it was done."""


class TransferStateError(TrunklineError):
    """The call is not allowed in the transfer's present state."""


class ShapeMismatchError(TrunklineError, ValueError):
    """The two sides of a transfer don't fit each other."""


class NotificationOverflowError(TrunklineError):
    """Notifications arrived faster than they were taken, and some were dropped.

    Attributes:
        dropped: How many, since the last time this was reported.
    """

    def __init__(self, message: str, *, dropped: int, **context: Any) -> None:
        super().__init__(message, dropped=dropped, **context)
        self.dropped = dropped


class VerificationError(TrunklineError):
    """Bytes that arrived are not the bytes that were offered."""


class TicketError(TrunklineError):
    """A ticket is not one, or the offer does not accept it: another offer's, in use, or used."""


class FileError(TrunklineError, OSError):
    """A file to offer or to register can't be opened or used, or the place to take one to can't be written."""
