"""NIXL's exceptions, and how Trunkline's errors become them. Each is a TrunklineError too, and begins its message with
the status that is NIXL's whole message.

    TrunklineError
    ├── nixlInvalidParamError      NIXL_ERR_INVALID_PARAM: an argument, or a call that needs a store and has none
    ├── nixlNotFoundError          NIXL_ERR_NOT_FOUND: no such agent, memory, plugin
    ├── nixlMismatchError          NIXL_ERR_MISMATCH: bytes that are not what they should be
    ├── nixlNotAllowedError        NIXL_ERR_NOT_ALLOWED: the name is taken, or regions contradict each other
    ├── nixlNotPostedError         NIXL_ERR_NOT_POSTED: a transfer that was not posted yet
    ├── nixlRepostActiveError      NIXL_ERR_REPOST_ACTIVE: a transfer that still runs was posted
    ├── nixlNotSupportedError      NIXL_ERR_NOT_SUPPORTED
    ├── nixlNoTelemetryError       NIXL_ERR_NO_TELEMETRY: it was not asked for in the agent's config
    ├── nixlUnknownError           NIXL_ERR_UNKNOWN
    ├── nixlBackendError           NIXL_ERR_BACKEND (also BackendError): the store, the network, UCX
    ├── nixlRemoteDisconnectError  NIXL_ERR_REMOTE_DISCONNECT (also PeerError): the peer is gone
    └── nixlCancelledError         NIXL_ERR_CANCELED (also TransferError)
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from trunkline import errors

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


class _StatusError(errors.TrunklineError):
    status: ClassVar[str] = ""

    def __init__(self, message: str = "", **context: Any) -> None:
        super().__init__(f"{self.status}: {message}" if message else self.status, **context)


class nixlInvalidParamError(_StatusError):
    """An argument can't be used, or the call needs a store that was not configured."""

    status = "NIXL_ERR_INVALID_PARAM"


class nixlNotFoundError(_StatusError):
    """There is no such agent, memory or plugin."""

    status = "NIXL_ERR_NOT_FOUND"


class nixlMismatchError(_StatusError):
    """Bytes are not what they should be."""

    status = "NIXL_ERR_MISMATCH"


class nixlNotAllowedError(_StatusError):
    """The name is taken, or metadata contradicts what is loaded."""

    status = "NIXL_ERR_NOT_ALLOWED"


class nixlNotPostedError(_StatusError):
    """The transfer was not posted yet."""

    status = "NIXL_ERR_NOT_POSTED"


class nixlRepostActiveError(_StatusError):
    """The transfer still runs."""

    status = "NIXL_ERR_REPOST_ACTIVE"


class nixlNotSupportedError(_StatusError):
    """The call is not supported."""

    status = "NIXL_ERR_NOT_SUPPORTED"


class nixlNoTelemetryError(_StatusError):
    """Telemetry was not asked for in the agent's config."""

    status = "NIXL_ERR_NO_TELEMETRY"


class nixlUnknownError(_StatusError):
    """Anything else."""

    status = "NIXL_ERR_UNKNOWN"


class nixlBackendError(_StatusError, errors.BackendError):
    """The store, the network or UCX failed."""

    status = "NIXL_ERR_BACKEND"


class nixlRemoteDisconnectError(_StatusError, errors.PeerError):
    """The peer is gone."""

    status = "NIXL_ERR_REMOTE_DISCONNECT"


class nixlCancelledError(_StatusError, errors.TransferError):
    """The transfer was cancelled."""

    status = "NIXL_ERR_CANCELED"


# The first that fits counts.
_TRANSLATIONS: tuple[tuple[type[errors.TrunklineError], type[_StatusError]], ...] = (
    (errors.TransferCancelledError, nixlCancelledError),
    (errors.TransferError, nixlRemoteDisconnectError),
    (errors.PeerGoneError, nixlRemoteDisconnectError),
    (errors.PeerDrainingError, nixlRemoteDisconnectError),
    (errors.PeerUnreachableError, nixlBackendError),
    (errors.UnknownPeerError, nixlNotFoundError),
    (errors.SegmentNotFoundError, nixlNotFoundError),
    (errors.NotRegisteredError, nixlNotFoundError),
    (errors.AgentNotFoundError, nixlNotFoundError),
    (errors.NoBackendError, nixlNotFoundError),
    (errors.MetadataDecodeError, nixlMismatchError),
    (errors.MetadataMismatchError, nixlNotAllowedError),
    (errors.AgentNameInUseError, nixlNotAllowedError),
    (errors.SupersededError, nixlNotAllowedError),
    (errors.TransferStateError, nixlRepostActiveError),
    (errors.NoStoreError, nixlInvalidParamError),
    (errors.ConfigurationError, nixlInvalidParamError),
    (errors.DescriptorError, nixlInvalidParamError),
    (errors.UnsupportedBufferError, nixlInvalidParamError),
    (errors.ShapeMismatchError, nixlInvalidParamError),
    (errors.BackendError, nixlBackendError),
    (errors.StoreError, nixlBackendError),
    (errors.DirectoryError, nixlBackendError),
    (errors.MemoryRegistrationError, nixlBackendError),
    (errors.MetadataError, nixlMismatchError),
    (errors.ClosedError, nixlBackendError),
    (errors.ForkedError, nixlBackendError),
    (errors.NotificationOverflowError, nixlBackendError),
)


def nixl_error(error: errors.TrunklineError) -> errors.TrunklineError:
    """Return the exception of NIXL's that stands for an error of ours (itself, if it is one)."""
    if isinstance(error, _StatusError):
        return error
    kind = next((theirs for ours, theirs in _TRANSLATIONS if isinstance(error, ours)), nixlUnknownError)
    return kind(str(error), **error.context)


def translated(call: Callable[P, T]) -> Callable[P, T]:
    """Have a call raise NIXL's exceptions instead of ours, which are their causes."""

    @functools.wraps(call)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except errors.TrunklineError as error:
            translation = nixl_error(error)
            if translation is error:
                raise
            raise translation from error

    return wrapper
