"""What a real S3 server refuses, and connections that break."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.fault.object.moves import MIB, opened, request_of

from trunkline.backend.contract import Operation, Status
from trunkline.errors import BackendError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.backend import PATIENCE, bytes_of, finish
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from trunkline.testing.s3 import Proxy, S3Server

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def throttled(_: bytes) -> bytes:
    head = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(SLOW_DOWN)}\r\nConnection: close\r\n\r\n"
    return head.encode() + SLOW_DOWN


def uploads(server: S3Server, bucket: str) -> list[Any]:
    found: list[Any] = server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return found


def failure_of(options: dict[str, Any], operation: Operation, key: str = "some/key", size: int = 100) -> str:
    with opened(**options) as backend:
        request = request_of(backend, operation, np.zeros(size, np.uint8), key)
        assert finish(request, request.post()) == Status.FAILED
        assert request.completed == 0
        return request.reason


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("wrong", ["access_key_id", "secret_access_key"])
def test_wrong_credentials(
    server: S3Server, bucket: str, operation: Operation, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options = server.options(bucket=bucket, **{wrong: "NotTheRightOne"})
    reason = failure_of(options, operation)
    assert reason.startswith(f"{operation.name} of bytes 0 to 99 of s3://{bucket}/some/key failed: HTTP 403 Forbidden")
    assert "InvalidAccessKeyId" in reason or "SignatureDoesNotMatch" in reason
    assert "check the credentials" in reason
    assert "0 of 100 bytes had arrived" in reason
    with opened(**options) as backend:
        with pytest.raises(BackendError, match="HTTP 403 Forbidden: check the credentials") as caught:
            backend.query(MemoryKind.OBJECT, ["some/key"])
        for shown in (reason, str(caught.value), repr(caught.value.__cause__), repr(backend), caplog.text):
            assert options["secret_access_key"] not in shown


@pytest.mark.parametrize("operation", list(Operation))
def test_a_bucket_that_is_missing(server: S3Server, operation: Operation) -> None:
    reason = failure_of(server.options(bucket="no-such-bucket"), operation)
    assert "s3://no-such-bucket/some/key failed: HTTP 404 Not Found, NoSuchBucket" in reason
    assert "check the bucket's name" in reason


def test_a_key_that_is_missing(server: S3Server, bucket: str) -> None:
    assert "HTTP 404 Not Found, NoSuchKey" in failure_of(server.options(bucket=bucket), Operation.READ)
    with opened(**server.options(bucket=bucket)) as backend:
        assert backend.query(MemoryKind.OBJECT, ["some/key"]) == [None]


def test_nobody_listens(server: S3Server, bucket: str, unused_tcp_port: int) -> None:
    options = server.options(bucket=bucket, endpoint=f"http://127.0.0.1:{unused_tcp_port}")
    reason = failure_of(options, Operation.READ)
    assert "no connection (Connection refused): check the endpoint" in reason


def test_objects_that_are_shorter_than_what_is_read(server: S3Server, bucket: str) -> None:
    server.client().put_object(Bucket=bucket, Key="short", Body=b"x" * 60)
    assert "the object is 60 bytes long" in failure_of(server.options(bucket=bucket), Operation.READ, "short")
    with opened(**server.options(bucket=bucket)) as backend:
        request = request_of(backend, Operation.READ, np.zeros(10, np.uint8), "short", offset=80)
        assert finish(request, request.post()) == Status.FAILED
        assert "HTTP 416" in request.reason
        assert "the object is shorter than the range" in request.reason


def test_asks_what_is_there(server: S3Server, bucket: str) -> None:
    before = time.time()
    server.client().put_object(Bucket=bucket, Key="a", Body=b"x" * 60)
    with opened(**server.options(bucket=bucket)) as backend:
        found, missing = backend.query(MemoryKind.OBJECT, ["a", "b"])
    assert missing is None
    assert found is not None
    assert found["size"] == "60"
    assert abs(float(found["mtime"]) - before) < PATIENCE
    assert found["etag"] == server.client().head_object(Bucket=bucket, Key="a")["ETag"]


@pytest.mark.parametrize("operation", list(Operation))
def test_a_throttled_store_is_asked_again(server: S3Server, bucket: str, proxy: Proxy, operation: Operation) -> None:
    data = bytes_of(100, 1)
    server.client().put_object(Bucket=bucket, Key="k", Body=data.tobytes())
    refused: list[bytes] = []

    def answer(chunk: bytes) -> bytes | None:
        if len(refused) < 2:
            refused.append(chunk)
            return throttled(chunk)
        return None

    proxy.answer = answer
    with opened(**server.options(bucket=bucket, endpoint=proxy.endpoint, max_retries=4)) as backend:
        memory = data.copy() if operation is Operation.WRITE else np.zeros(100, np.uint8)
        request = request_of(backend, operation, memory, "k")
        assert finish(request, request.post()) == Status.DONE, request.reason
    assert len(refused) == 2
    np.testing.assert_array_equal(memory, data)
    assert server.client().get_object(Bucket=bucket, Key="k")["Body"].read() == data.tobytes()


def test_a_store_that_goes_on_throttling(server: S3Server, bucket: str, proxy: Proxy) -> None:
    proxy.answer = throttled
    reason = failure_of(server.options(bucket=bucket, endpoint=proxy.endpoint, max_retries=2), Operation.READ)
    assert "HTTP 503" in reason
    assert "SlowDown" in reason
    assert "tried 3 times" in reason
    assert "use a lower concurrency, or more retries" in reason


@pytest.mark.parametrize("operation", list(Operation))
def test_a_connection_cut_midway(server: S3Server, bucket: str, proxy: Proxy, operation: Operation) -> None:
    size = 12 * MIB
    server.client().put_object(Bucket=bucket, Key="k", Body=b"o" * size)
    proxy.cut_after = MIB if operation is Operation.READ else 0
    options = server.options(bucket=bucket, endpoint=proxy.endpoint, max_retries=1, retry_timeout=30)
    with opened(**options) as backend:
        memory = np.zeros(size, np.uint8)
        request = request_of(backend, operation, memory, "k")
        assert finish(request, request.post()) == Status.FAILED
        assert request.completed == 0
        assert f"of s3://{bucket}/k failed: " in request.reason
        assert "0 of 12,582,912 bytes had arrived" in request.reason
        assert "check the endpoint" in request.reason
        proxy.cut_after = None
        assert finish(request, request.post()) == Status.DONE, request.reason
    held = server.client().get_object(Bucket=bucket, Key="k")["Body"].read()
    assert held == (b"o" if operation is Operation.READ else b"\0") * size
    assert bytes(memory) == held


def test_a_cut_that_does_not_come_again_goes_unnoticed(server: S3Server, bucket: str, proxy: Proxy) -> None:
    data = bytes_of(12 * MIB, 1)
    server.client().put_object(Bucket=bucket, Key="k", Body=data.tobytes())
    proxy.cut_after = MIB

    def answer(_: bytes) -> None:
        if proxy.connections > 3:
            proxy.cut_after = None

    proxy.answer = answer
    with opened(**server.options(bucket=bucket, endpoint=proxy.endpoint, max_retries=8)) as backend:
        memory = np.zeros_like(data)
        request = request_of(backend, Operation.READ, memory, "k")
        assert finish(request, request.post()) == Status.DONE, request.reason
    np.testing.assert_array_equal(memory, data)
    assert proxy.connections > 3


def test_a_part_that_fails_leaves_no_upload_and_no_object(server: S3Server, bucket: str, proxy: Proxy) -> None:
    proxy.answer = lambda chunk: throttled(chunk) if b"partNumber=3&" in chunk.split(b"\r\n")[0] else None
    reason = failure_of(server.options(bucket=bucket, endpoint=proxy.endpoint), Operation.WRITE, "k", size=30 * MIB)
    assert "SlowDown" in reason or "HTTP 5" in reason  # which of them moto sees first differs on busy machines
    eventually(lambda: uploads(server, bucket) == [])
    assert server.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_stopped_upload_leaves_nothing(server: S3Server, bucket: str) -> None:
    with opened(**server.options(bucket=bucket, concurrency=2)) as backend:
        request = request_of(backend, Operation.WRITE, np.ones(64 * MIB, np.uint8), "k")
        assert request.post() == Status.IN_PROGRESS
        eventually(lambda: uploads(server, bucket))
        request.stop()
        assert finish(request, request.poll()) == Status.STOPPED
        assert request.completed == 0
    assert uploads(server, bucket) == []
    assert server.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_read_of_a_store_that_hangs_stops_at_once(server: S3Server, bucket: str, proxy: Proxy) -> None:
    server.client().put_object(Bucket=bucket, Key="k", Body=b"o" * 100)
    proxy.is_stalled = True
    with opened(**server.options(bucket=bucket, endpoint=proxy.endpoint)) as backend:
        memory = np.zeros(100, np.uint8)
        request = request_of(backend, Operation.READ, memory, "k")
        assert request.post() == Status.IN_PROGRESS
        eventually(lambda: proxy.connections)
        request.stop()
        assert request.wait(time.monotonic() + 3) == Status.STOPPED
        proxy.is_stalled = False
        assert not memory.any()


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("how", ["stop", "close"])
def test_a_store_that_hangs_does_not_hold_up_the_end(
    server: S3Server, bucket: str, proxy: Proxy, operation: Operation, how: str
) -> None:
    server.client().put_object(Bucket=bucket, Key="k", Body=b"o" * 12 * MIB)
    proxy.is_stalled = True
    with opened(**server.options(bucket=bucket, endpoint=proxy.endpoint)) as backend:
        request = request_of(backend, operation, np.zeros(12 * MIB, np.uint8), "k")
        assert request.post() == Status.IN_PROGRESS
        eventually(lambda: proxy.connections)
        began = time.monotonic()
        if how == "stop":
            request.stop()
            assert finish(request, request.poll()) == Status.STOPPED
        else:
            backend.close()
            assert request.poll() == Status.FAILED
            assert "closed; 0 of 12,582,912 bytes had arrived" in request.reason
        assert time.monotonic() - began < 20  # without an end of its own it would take the store's 30 s and more
    assert "trunkline-obj-agent" not in {thread.name for thread in threading.enumerate()}
