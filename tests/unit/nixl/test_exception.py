from __future__ import annotations

import pytest

from trunkline import errors
from trunkline.nixl import _bindings, exception
from trunkline.nixl.exception import nixl_error, translated


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (errors.UnknownPeerError("x"), "nixlNotFoundError"),
        (errors.SegmentGoneError("x"), "nixlNotFoundError"),
        (errors.NotRegisteredError("x"), "nixlNotFoundError"),
        (errors.AgentNotFoundError("x"), "nixlNotFoundError"),
        (errors.PeerGoneError("x"), "nixlRemoteDisconnectError"),
        (errors.TransferError("x"), "nixlRemoteDisconnectError"),
        (errors.TransferCancelledError("x"), "nixlCancelledError"),
        (errors.TransferStateError("x"), "nixlRepostActiveError"),
        (errors.MetadataDecodeError("x"), "nixlMismatchError"),
        (errors.MetadataMismatchError("x"), "nixlNotAllowedError"),
        (errors.AgentNameInUseError("x"), "nixlNotAllowedError"),
        (errors.NoStoreError("x"), "nixlInvalidParamError"),
        (errors.StoreUnavailableError("x"), "nixlBackendError"),
        (errors.StoreAuthError("x"), "nixlBackendError"),
        (errors.MemoryInUseError("x"), "nixlBackendError"),
        (errors.DescriptorError("x"), "nixlInvalidParamError"),
        (errors.VerificationError("x"), "nixlUnknownError"),
    ],
)
def test_each_error_of_ours_has_nixl_s_name(ours: errors.TrunklineError, theirs: str) -> None:
    @translated
    def call() -> None:
        raise ours

    with pytest.raises(getattr(_bindings, theirs)) as caught:
        call()
    assert isinstance(caught.value, errors.TrunklineError)
    assert caught.value.__cause__ is ours
    assert str(caught.value) == f"{getattr(_bindings, theirs).status}: x"


def test_every_kind_of_error_is_translated() -> None:
    """All but what can't come out of an agent's calls, or is said by its cause."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.TrunklineError)
        and not issubclass(kind, errors.GroupError | errors.ResultError)
    ]
    untranslated = {
        kind.__name__ for kind in kinds if not any(issubclass(kind, ours) for ours, _ in exception._TRANSLATIONS)
    }
    assert untranslated == {
        "TrunklineError",
        "DeadlineError",
        "PeerError",
        "PeerIncompatibleError",
        "VerificationError",
        "TicketError",
        "FileError",
    }


def test_nixl_s_own_stay_what_they_are() -> None:
    error = exception.nixlBackendError("x", agent="a")
    assert nixl_error(error) is error
    assert error.context == {"agent": "a"}
    assert isinstance(error, errors.BackendError)
    assert str(exception.nixlNotPostedError()) == "NIXL_ERR_NOT_POSTED"
