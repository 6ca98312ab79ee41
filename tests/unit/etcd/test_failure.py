from __future__ import annotations

import grpc
import pytest
from tests.unit.etcd.fakes import FakeRpcError

from trunkline.clock import Deadline
from trunkline.errors import (
    RevisionUnavailableError,
    StoreAuthError,
    StoreError,
    StoreLimitError,
    StoreRequestError,
    StoreUnavailableError,
)
from trunkline.etcd.failure import Failure, store_error

CODE = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details", "error"),
    [
        (CODE.UNAVAILABLE, "failed to connect", StoreUnavailableError),
        (CODE.UNAVAILABLE, "etcdserver: no leader", StoreUnavailableError),
        (CODE.DEADLINE_EXCEEDED, "Deadline Exceeded", StoreUnavailableError),
        (CODE.UNKNOWN, "Stream removed", StoreUnavailableError),
        (CODE.RESOURCE_EXHAUSTED, "etcdserver: too many requests", StoreUnavailableError),
        (CODE.INVALID_ARGUMENT, "etcdserver: user name is empty", StoreAuthError),
        (CODE.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password", StoreAuthError),
        (CODE.UNAUTHENTICATED, "etcdserver: invalid auth token", StoreAuthError),
        (CODE.PERMISSION_DENIED, "etcdserver: permission denied", StoreAuthError),
        (CODE.INVALID_ARGUMENT, "etcdserver: request is too large", StoreLimitError),
        (CODE.RESOURCE_EXHAUSTED, "trying to send message larger than max", StoreLimitError),
        (CODE.INVALID_ARGUMENT, "etcdserver: too many operations in txn request", StoreLimitError),
        (CODE.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request", StoreRequestError),
        (CODE.NOT_FOUND, "etcdserver: requested lease not found", StoreRequestError),
        (CODE.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", RevisionUnavailableError),
    ],
)
def test_every_refusal_has_its_error(code: grpc.StatusCode, details: str, error: type[StoreError]) -> None:
    made = store_error(
        Failure.of(FakeRpcError(code, details)),
        operation="get",
        key=b"/k\xff",
        url="etcd://a:1,b:2",
        endpoint="a:1",
        deadline=Deadline(1),
    )
    assert type(made) is error
    for part in ("get '/k", details, "a:1", " s "):
        assert part in str(made)
    assert made.context["code"] == code.name
    assert made.context["key"] == "/k\udcff"


def test_a_full_database_is_called_so() -> None:
    failure = Failure.of(FakeRpcError(CODE.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"))
    error = store_error(failure, operation="put", key=b"k", url="u", endpoint="e", deadline=Deadline(1))
    assert type(error) is StoreLimitError
    assert "--auto-compaction-retention" in str(error)


def test_missing_credentials_are_called_so() -> None:
    failure = Failure.of(FakeRpcError(CODE.INVALID_ARGUMENT, "etcdserver: user name is empty"))
    error = store_error(failure, operation="get", key=b"k", url="u", endpoint="e", deadline=Deadline(1))
    assert "ETCDCTL_USER" in str(error)
