"""What a real S3 server refuses, and connections that break."""

from __future__ import annotations

import gc
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.fault.object.moves import MIB, opened, request_of

from trunkline.backend.contract import Operation, Status
from trunkline.errors import BackendError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import bytes_of, finish
from trunkline.testing.waiting import PATIENCE, eventually

if TYPE_CHECKING:
    from trunkline.testing.proxy import HttpProxy
    from trunkline.testing.s3 import S3Server

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def throttled(_: bytes) -> bytes:
    head = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(SLOW_DOWN)}\r\nConnection: close\r\n\r\n"
    return head.encode() + SLOW_DOWN


def uploads(s3: S3Server, bucket: str) -> list[Any]:
    found: list[Any] = s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return found


def failure_of(options: dict[str, Any], operation: Operation, key: str = "some/key", size: int = 100) -> str:
    with opened(**options) as backend:
        request = request_of(backend, operation, np.zeros(size, np.uint8), key)
        assert finish(request, request.post()) == Status.FAILED
        assert request.completed == 0
        return request.reason


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize(
    ("wrong", "code"), [("access_key_id", "InvalidAccessKeyId"), ("secret_access_key", "SignatureDoesNotMatch")]
)
def test_wrong_credentials(
    s3: S3Server, bucket: str, operation: Operation, wrong: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options = s3.options(bucket=bucket, **{wrong: "NotTheRightOne"})
    reason = failure_of(options, operation)
    assert reason.startswith(f"{operation.name} of bytes 0 to 99 of s3://{bucket}/some/key failed: HTTP 403 Forbidden")
    assert f"HTTP 403 Forbidden, {code} (" in reason
    assert "check the credentials" in reason
    assert "0 of 100 bytes had arrived" in reason
    with opened(**options) as backend:
        with pytest.raises(BackendError, match="HTTP 403 Forbidden: check the credentials") as caught:
            backend.query(MemoryKind.OBJECT, ["some/key"])
        for shown in (reason, str(caught.value), repr(caught.value.__cause__), repr(backend), caplog.text):
            assert options["secret_access_key"] not in shown


@pytest.mark.parametrize("operation", list(Operation))
def test_a_bucket_that_is_missing(s3: S3Server, operation: Operation) -> None:
    reason = failure_of(s3.options(bucket="no-such-bucket"), operation)
    assert "s3://no-such-bucket/some/key failed: HTTP 404 Not Found, NoSuchBucket" in reason
    assert "check the bucket's name" in reason


def test_a_key_that_is_missing(s3: S3Server, bucket: str) -> None:
    assert "HTTP 404 Not Found, NoSuchKey" in failure_of(s3.options(bucket=bucket), Operation.READ)
    with opened(**s3.options(bucket=bucket)) as backend:
        assert backend.query(MemoryKind.OBJECT, ["some/key"]) == [None]


def test_nobody_listens(s3: S3Server, bucket: str, unused_tcp_port: int) -> None:
    options = s3.options(bucket=bucket, endpoint=f"http://127.0.0.1:{unused_tcp_port}")
    reason = failure_of(options, Operation.READ)
    assert "no connection (Connection refused): check the endpoint" in reason


def test_objects_that_are_shorter_than_what_is_read(s3: S3Server, bucket: str) -> None:
    s3.client().put_object(Bucket=bucket, Key="short", Body=b"x" * 60)
    assert "the object is 60 bytes long" in failure_of(s3.options(bucket=bucket), Operation.READ, "short")
    with opened(**s3.options(bucket=bucket)) as backend:
        request = request_of(backend, Operation.READ, np.zeros(10, np.uint8), "short", offset=80)
        assert finish(request, request.post()) == Status.FAILED
        assert "HTTP 416" in request.reason
        assert "the object is shorter than the range" in request.reason


def test_asks_what_is_there(s3: S3Server, bucket: str) -> None:
    before = time.time()
    s3.client().put_object(Bucket=bucket, Key="a", Body=b"x" * 60)
    with opened(**s3.options(bucket=bucket)) as backend:
        found, missing = backend.query(MemoryKind.OBJECT, ["a", "b"])
    assert missing is None
    assert found is not None
    assert found["size"] == "60"
    assert abs(float(found["mtime"]) - before) < PATIENCE
    assert found["etag"] == s3.client().head_object(Bucket=bucket, Key="a")["ETag"]


@pytest.mark.parametrize("operation", list(Operation))
def test_a_throttled_store_is_asked_again(s3: S3Server, bucket: str, s3_proxy: HttpProxy, operation: Operation) -> None:
    data = bytes_of(100, 1)
    s3.client().put_object(Bucket=bucket, Key="k", Body=data.tobytes())
    refused: list[bytes] = []

    def answer(chunk: bytes) -> bytes | None:
        if len(refused) < 2:
            refused.append(chunk)
            return throttled(chunk)
        return None

    s3_proxy.answer = answer
    with opened(**s3.options(bucket=bucket, endpoint=s3_proxy.endpoint, max_retries=4)) as backend:
        memory = data.copy() if operation is Operation.WRITE else np.zeros(100, np.uint8)
        request = request_of(backend, operation, memory, "k")
        assert finish(request, request.post()) == Status.DONE, request.reason
    assert len(refused) == 2
    np.testing.assert_array_equal(memory, data)
    assert s3.client().get_object(Bucket=bucket, Key="k")["Body"].read() == data.tobytes()


def test_a_store_that_goes_on_throttling(s3: S3Server, bucket: str, s3_proxy: HttpProxy) -> None:
    s3_proxy.answer = throttled
    reason = failure_of(s3.options(bucket=bucket, endpoint=s3_proxy.endpoint, max_retries=2), Operation.READ)
    assert "HTTP 503" in reason
    assert "SlowDown" in reason
    assert "tried 3 times" in reason
    assert "use a lower concurrency, or more retries" in reason


def test_a_store_that_throttles_by_429(s3: S3Server, bucket: str, s3_proxy: HttpProxy) -> None:
    s3_proxy.answer = lambda chunk: throttled(chunk).replace(b"503 Slow Down", b"429 Too Many Requests")
    reason = failure_of(s3.options(bucket=bucket, endpoint=s3_proxy.endpoint, max_retries=2), Operation.READ)
    assert "HTTP 429 Too Many Requests, SlowDown" in reason
    assert "tried 3 times" in reason
    assert "the store throttles: use a lower concurrency, or more retries" in reason


@pytest.mark.parametrize("operation", list(Operation))
def test_a_store_that_does_not_answer_in_time(
    s3: S3Server, bucket: str, s3_proxy: HttpProxy, operation: Operation
) -> None:
    s3_proxy.is_stalled = True
    reason = failure_of(s3.options(bucket=bucket, endpoint=s3_proxy.endpoint, timeout=0.3), operation)
    assert "no answer in time: check the endpoint, and that the store is up; 0 of 100 bytes had arrived" in reason


@pytest.mark.parametrize("operation", list(Operation))
def test_a_connection_cut_midway(s3: S3Server, bucket: str, s3_proxy: HttpProxy, operation: Operation) -> None:
    size = 12 * MIB
    s3.client().put_object(Bucket=bucket, Key="k", Body=b"o" * size)
    s3_proxy.cut_after = MIB if operation is Operation.READ else 0
    options = s3.options(bucket=bucket, endpoint=s3_proxy.endpoint, max_retries=1, retry_timeout=30)
    with opened(**options) as backend:
        memory = np.zeros(size, np.uint8)
        request = request_of(backend, operation, memory, "k")
        assert finish(request, request.post()) == Status.FAILED
        assert request.completed == 0
        assert f"of s3://{bucket}/k failed: " in request.reason
        assert "0 of 12,582,912 bytes had arrived" in request.reason
        assert "check the endpoint" in request.reason
        s3_proxy.cut_after = None
        assert finish(request, request.post()) == Status.DONE, request.reason
    held = s3.client().get_object(Bucket=bucket, Key="k")["Body"].read()
    assert held == (b"o" if operation is Operation.READ else b"\0") * size
    assert bytes(memory) == held


def test_a_cut_that_does_not_come_again_goes_unnoticed(s3: S3Server, bucket: str, s3_proxy: HttpProxy) -> None:
    data = bytes_of(12 * MIB, 1)
    s3.client().put_object(Bucket=bucket, Key="k", Body=data.tobytes())
    s3_proxy.cut_after = MIB

    def answer(_: bytes) -> None:
        if s3_proxy.connections > 3:
            s3_proxy.cut_after = None

    s3_proxy.answer = answer
    with opened(**s3.options(bucket=bucket, endpoint=s3_proxy.endpoint, max_retries=8)) as backend:
        memory = np.zeros_like(data)
        request = request_of(backend, Operation.READ, memory, "k")
        assert finish(request, request.post()) == Status.DONE, request.reason
    np.testing.assert_array_equal(memory, data)
    assert s3_proxy.connections > 3


def test_a_part_that_fails_leaves_no_upload_and_no_object(s3: S3Server, bucket: str, s3_proxy: HttpProxy) -> None:
    s3_proxy.answer = lambda chunk: throttled(chunk) if b"partNumber=3&" in chunk.split(b"\r\n")[0] else None
    # One part at a time: moto can't abort an upload in one thread that gets a part in another.
    options = s3.options(bucket=bucket, endpoint=s3_proxy.endpoint, concurrency=1)
    reason = failure_of(options, Operation.WRITE, "k", size=30 * MIB)
    assert "HTTP 503 Service Unavailable, SlowDown" in reason
    assert uploads(s3, bucket) == []
    assert s3.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_an_upload_that_can_not_be_aborted_either(s3: S3Server, bucket: str, s3_proxy: HttpProxy) -> None:
    def answer(chunk: bytes) -> bytes | None:
        head = chunk.split(b"\r\n")[0]
        return throttled(chunk) if b"partNumber=2&" in head or head.startswith(b"DELETE") else None

    s3_proxy.answer = answer
    options = s3.options(bucket=bucket, endpoint=s3_proxy.endpoint, concurrency=1)
    reason = failure_of(options, Operation.WRITE, "k", size=12 * MIB)
    assert "SlowDown (Please reduce your request rate.) when the upload was aborted because a part of it had" in reason
    assert "parts may be left at the store" in reason
    assert len(uploads(s3, bucket)) == 1
    assert s3.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_stopped_upload_leaves_nothing(s3: S3Server, bucket: str) -> None:
    with opened(**s3.options(bucket=bucket, concurrency=2)) as backend:
        request = request_of(backend, Operation.WRITE, np.ones(64 * MIB, np.uint8), "k")
        assert request.post() == Status.IN_PROGRESS
        eventually(lambda: uploads(s3, bucket))
        request.stop()
        assert finish(request, request.poll()) == Status.STOPPED
        assert request.completed == 0
    assert uploads(s3, bucket) == []
    assert s3.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_read_of_a_store_that_hangs_stops_at_once(s3: S3Server, bucket: str, s3_proxy: HttpProxy) -> None:
    s3.client().put_object(Bucket=bucket, Key="k", Body=b"o" * 100)
    s3_proxy.is_stalled = True
    with opened(**s3.options(bucket=bucket, endpoint=s3_proxy.endpoint)) as backend:
        memory = np.zeros(100, np.uint8)
        request = request_of(backend, Operation.READ, memory, "k")
        assert request.post() == Status.IN_PROGRESS
        eventually(lambda: s3_proxy.connections)
        request.stop()
        assert request.wait(time.monotonic() + 3) == Status.STOPPED
        s3_proxy.is_stalled = False
        assert not memory.any()


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("how", ["stop", "close"])
def test_a_store_that_hangs_does_not_hold_up_the_end(
    s3: S3Server, bucket: str, s3_proxy: HttpProxy, operation: Operation, how: str
) -> None:
    s3.client().put_object(Bucket=bucket, Key="k", Body=b"o" * 12 * MIB)
    s3_proxy.is_stalled = True
    with opened(**s3.options(bucket=bucket, endpoint=s3_proxy.endpoint)) as backend:
        request = request_of(backend, operation, np.zeros(12 * MIB, np.uint8), "k")
        assert request.post() == Status.IN_PROGRESS
        eventually(lambda: s3_proxy.connections)
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


def test_a_backend_that_is_gone_leaves_no_connection(s3: S3Server, bucket: str) -> None:
    def connections() -> int:
        hexadecimal = f":{s3.port:04X}"
        lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
        return sum(line.split()[2].endswith(hexadecimal) and line.split()[3] == "01" for line in lines)

    before = connections()
    for _ in range(3):
        with opened(**s3.options(bucket=bucket)) as backend:
            request = request_of(backend, Operation.WRITE, np.ones(12 * MIB, np.uint8), "k")
            assert finish(request, request.post()) == Status.DONE, request.reason
        del request, backend
        gc.collect()
    eventually(lambda: connections() <= before)
