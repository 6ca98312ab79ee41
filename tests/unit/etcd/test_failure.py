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
        (CODE.UNKNOWN, "context deadline exceeded", StoreUnavailableError),
        (CODE.RESOURCE_EXHAUSTED, "etcdserver: too many requests", StoreUnavailableError),
        (CODE.INVALID_ARGUMENT, "etcdserver: user name is empty", StoreAuthError),
        (CODE.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password", StoreAuthError),
        (CODE.UNAUTHENTICATED, "etcdserver: invalid auth token", StoreAuthError),
        (CODE.PERMISSION_DENIED, "etcdserver: permission denied", StoreAuthError),
        (CODE.UNAVAILABLE, "failed to connect: CERTIFICATE_VERIFY_FAILED: certificate has expired", StoreAuthError),
        (CODE.UNAVAILABLE, "failed to connect: Hostname Verification Check failed.", StoreAuthError),
        (CODE.UNAVAILABLE, "failed to connect: SSLV3_ALERT_BAD_CERTIFICATE", StoreAuthError),
        (CODE.UNAVAILABLE, "failed to connect: TLSV1_ALERT_UNKNOWN_CA", StoreAuthError),
        (CODE.UNAVAILABLE, "failed to connect: Unwrap failed (TSI_DATA_CORRUPTED)", StoreAuthError),
        (CODE.UNAVAILABLE, "Unwrap failed (TSI_DATA_CORRUPTED)", StoreUnavailableError),  # of a connection that stood
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


@pytest.mark.parametrize(
    ("url", "details", "advice"),
    [
        ("etcd://a:1", "failed to connect: Socket closed", "write etcds://"),
        ("etcds://a:1", "failed to connect: Handshake read failed (Socket closed)", "a port for TLS"),
        ("etcds://a:1", "failed to connect: WRONG_VERSION_NUMBER", "a port for TLS"),
        ("etcds://a:1", "failed to connect: CERTIFICATE_VERIFY_FAILED", "ETCDCTL_CACERT"),
        ("etcds://a:1", "failed to connect: SSLV3_ALERT_BAD_CERTIFICATE", "ETCDCTL_CERT"),
        ("etcds://a:1", "Socket closed", "running and reachable"),
    ],
)
def test_what_to_do_about_a_failure_to_connect_is_said(url: str, details: str, advice: str) -> None:
    failure = Failure.of(FakeRpcError(CODE.UNAVAILABLE, details))
    error = store_error(failure, operation="get", key=b"k", url=url, endpoint="a:1", deadline=Deadline(1))
    assert advice in str(error)
