"""What the refusals of Redis and of its client mean, and the errors we raise for them."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from redis import exceptions

from trunkline.errors import (
    RevisionUnavailableError,
    StoreAuthError,
    StoreError,
    StoreRequestError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.clock import Deadline

# Codes that errors begin with, where the client has no class for them.
_PASSING_CODES = ("BUSY", "LOADING", "MISCONF", "NOREPLICAS", "UNBLOCKED")
_AUTH_CODES = ("NOAUTH", "NOPERM", "WRONGPASS")
_PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    OSError,
)
_AUTH = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
_UNREACHABLE = "is Redis running and reachable there?"
_ADVICE_BY_WORDS = {
    "read only replica": "that server is a replica: name the primary",
    "MISCONF": "it can't write its snapshots, and so takes no writes: see its log",
    "maxmemory": "it has used its memory: give it more, and keep the policy noeviction",
    "unknown command": "Redis 7 or later, or Valkey, is needed",
}
_DISTRUST = "the certificate of the server is not accepted: is it for the host name in the URL, still valid, and "
_DISTRUST += "signed by an authority in the file given as ca?"
_DISTRUSTED = "the server does not accept our certificate: give one that its authority signed, as cert and key"
_CHECK_USER = "check the password, and the user's rights: all commands on keys that begin with trunkline:"


def store_error(error: Exception, *, operation: str, url: str, deadline: Deadline) -> StoreError:
    """Return our error for one of the client's; chain it to the other."""
    words = str(error)
    kind: type[StoreError] = StoreRequestError
    advice = next((advice for some, advice in _ADVICE_BY_WORDS.items() if some in words), "")
    if _is_distrust(error):
        kind, advice = StoreAuthError, _DISTRUST
    elif "alert" in words.lower() and ("certificate" in words.lower() or "unknown ca" in words.lower()):
        kind, advice = StoreAuthError, _DISTRUSTED
    elif _is_auth(error):
        kind, advice = StoreAuthError, _CHECK_USER
    elif "TRUNKLINEREVISION" in words:
        kind, advice = RevisionUnavailableError, "Redis holds no revision but the latest; read again what is there now"
    elif "TRUNKLINELEASE" in words:
        advice = "there is no such lease (any more); grant another"
    elif isinstance(error, _PASSING) or words.startswith(_PASSING_CODES):
        kind, advice = StoreUnavailableError, advice or _UNREACHABLE
    return kind(
        f"Redis at {url}: {operation} failed after {deadline.elapsed:.1f} s "
        f"({type(error).__name__}: {words}); {advice or 'the request itself must change'}",
        operation=operation,
        url=url,
        elapsed=deadline.elapsed,
    )


@contextmanager
def reading(url: str) -> Iterator[None]:
    """Raise StoreRequestError where what Redis holds is not of the form that we write."""
    try:
        yield
    except ValueError as error:
        raise StoreRequestError(
            f"Redis at {url}: {error}; something else has written to keys that begin with trunkline:", url=url
        ) from error


def _is_auth(error: Exception) -> bool:
    return isinstance(error, _AUTH) or str(error).startswith(_AUTH_CODES)


def _is_distrust(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
