"""What etcd's and gRPC's refusals mean, and the errors we raise for them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import grpc

from trunkline.errors import (
    RevisionUnavailableError,
    StoreAuthError,
    StoreError,
    StoreLimitError,
    StoreRequestError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from trunkline.clock import Deadline


class Kind(Enum):
    """What to do about a failed call."""

    UNAVAILABLE = auto()  # try another endpoint, later the same one
    TIMED_OUT = auto()  # as above, and give a slow answer more time
    DISTRUST = auto()  # as UNAVAILABLE, but not for long: we don't accept the endpoint's certificate
    DISTRUSTED = auto()  # likewise: the endpoint doesn't accept ours
    TOKEN = auto()  # authenticate again
    AUTH = auto()
    LIMIT = auto()
    REVISION = auto()
    REFUSED = auto()


# Words of etcd's messages (api/v3rpc/rpctypes/error.go), where the code alone does not tell.
_BY_WORDS = {
    "invalid auth token": Kind.TOKEN,
    "revision of auth store is old": Kind.TOKEN,
    "user name is empty": Kind.TOKEN,
    "authentication failed": Kind.AUTH,
    "permission denied": Kind.AUTH,
    "too many requests": Kind.UNAVAILABLE,
    "context deadline exceeded": Kind.TIMED_OUT,  # the server's view of our deadline, sometimes with code UNKNOWN
    "request is too large": Kind.LIMIT,
    "too many operations in txn": Kind.LIMIT,
    "required revision": Kind.REVISION,  # "has been compacted", "is a future revision"
    "Stream removed": Kind.UNAVAILABLE,  # gRPC's own, with code UNKNOWN, when a connection breaks
}
# Words of BoringSSL and gRPC for what went wrong while connecting.
_CONNECTING = "failed to connect"
_BY_WORDS_CONNECTING = {
    "CERTIFICATE_VERIFY_FAILED": Kind.DISTRUST,
    "Hostname Verification": Kind.DISTRUST,
    "ALERT_BAD_CERTIFICATE": Kind.DISTRUSTED,
    "ALERT_CERTIFICATE": Kind.DISTRUSTED,  # ..._EXPIRED, _REQUIRED, _REVOKED, _UNKNOWN
    "ALERT_UNKNOWN_CA": Kind.DISTRUSTED,
    "TSI_DATA_CORRUPTED": Kind.DISTRUSTED,  # with TLS 1.3 the refusal comes after the handshake, and so is put
}
_BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: Kind.UNAVAILABLE,
    grpc.StatusCode.INTERNAL: Kind.UNAVAILABLE,  # HTTP/2 framing broke: the connection's fault, not the request's
    grpc.StatusCode.CANCELLED: Kind.UNAVAILABLE,  # by the server; our own close is told apart before
    grpc.StatusCode.DEADLINE_EXCEEDED: Kind.TIMED_OUT,
    grpc.StatusCode.UNAUTHENTICATED: Kind.AUTH,
    grpc.StatusCode.PERMISSION_DENIED: Kind.AUTH,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Kind.LIMIT,
}

_ADVICE = {
    Kind.UNAVAILABLE: "is etcd running and reachable there?",
    Kind.TIMED_OUT: "is etcd running and reachable there?",
    Kind.DISTRUST: "the certificate of etcd is not accepted: is it for the host name in the URL, still valid, and "
    "signed by an authority in the file given as ca (or ETCDCTL_CACERT)?",
    Kind.DISTRUSTED: "etcd does not accept our certificate: it wants one that its own authority signed and that is "
    "still valid, given as cert and key (or ETCDCTL_CERT and ETCDCTL_KEY)",
    Kind.TOKEN: "the token was renewed and refused again; check the clocks and auth settings of the cluster",
    Kind.AUTH: "check the username, the password and the user's role",
    Kind.LIMIT: "etcd takes 1.5 MiB and 128 operations per request unless its operator raised that",
    Kind.REVISION: "read again what is there now",
    Kind.REFUSED: "the request itself must change",
}
_NO_TLS = "is that a port for TLS? This client never goes back to plain text by itself; http:// asks for it"
_TLS = "is etcd running and reachable there? If it wants TLS, write etcds:// (or https://)"
_ADVICE_BY_WORDS = {
    "user name is empty": "credentials are missing: give username and password, a credentials file, or set "
    "ETCDCTL_USER=name:password",
    "database space exceeded": "compact etcd's history, defragment it and disarm its alarm, or have it started with "
    "--auto-compaction-retention and a larger --quota-backend-bytes",
    "Handshake read failed": _NO_TLS,
    "WRONG_VERSION_NUMBER": _NO_TLS,
}
_ERRORS: dict[Kind, type[StoreError]] = {
    Kind.DISTRUST: StoreAuthError,
    Kind.DISTRUSTED: StoreAuthError,
    Kind.UNAVAILABLE: StoreUnavailableError,
    Kind.TIMED_OUT: StoreUnavailableError,
    Kind.TOKEN: StoreAuthError,
    Kind.AUTH: StoreAuthError,
    Kind.LIMIT: StoreLimitError,
    Kind.REVISION: RevisionUnavailableError,
    Kind.REFUSED: StoreRequestError,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt.

    Attributes:
        kind: What it means.
        code: Name of the gRPC status code.
        details: The words of the server or of gRPC.
    """

    kind: Kind
    code: str
    details: str

    @classmethod
    def of(cls, error: grpc.RpcError) -> Failure:
        """Judge an error that gRPC raised."""
        call: Any = error  # gRPC's errors are calls at the same time, which its types don't say
        code, details = call.code(), call.details() or ""
        return cls(classify(details, _BY_CODE.get(code, Kind.REFUSED)), code.name, details)

    @property
    def is_passing(self) -> bool:
        """Whether another endpoint or a later attempt may succeed."""
        return self.kind in {Kind.UNAVAILABLE, Kind.TIMED_OUT} or self.is_distrust

    @property
    def is_distrust(self) -> bool:
        """Whether a certificate was not accepted, on either side."""
        return self.kind in {Kind.DISTRUST, Kind.DISTRUSTED}


def classify(details: str, otherwise: Kind) -> Kind:
    """Judge a message of etcd by its words; ``otherwise`` if they say nothing special."""
    table = _BY_WORDS_CONNECTING if _CONNECTING in details else _BY_WORDS
    return next((kind for words, kind in table.items() if words in details), otherwise)


def describe(operation: str, key: bytes) -> str:
    """Name a call for messages."""
    return f"{operation} {key.decode('utf-8', 'backslashreplace')!r}" if key else operation


def store_error(
    failure: Failure, *, operation: str, key: bytes, url: str, endpoint: str, deadline: Deadline
) -> StoreError:
    """Compose the error for a call that failed for good."""
    advice = next((advice for words, advice in _ADVICE_BY_WORDS.items() if words in failure.details), None)
    if advice is None and "Socket closed" in failure.details and url.startswith("etcd:"):
        advice = _TLS
    where = url if failure.is_passing else endpoint
    return _ERRORS[failure.kind](
        f"etcd at {where}: {describe(operation, key)} failed after {deadline.elapsed:.1f} s "
        f"({failure.code}: {failure.details}); {advice or _ADVICE[failure.kind]}",
        operation=operation,
        key=key.decode("utf-8", "surrogateescape"),
        url=url,
        endpoint=endpoint,
        elapsed=deadline.elapsed,
        code=failure.code,
    )
