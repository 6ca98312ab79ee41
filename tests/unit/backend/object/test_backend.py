from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import threading
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from obstore.store import LocalStore, MemoryStore
from tests.fault.object.moves import MIB, opened, request_of

from trunkline.backend.contract import Operation, Status
from trunkline.backend.plugins.object import ObjectBackend
from trunkline.backend.plugins.object.worker import DRAIN
from trunkline.errors import BackendError, ClosedError, ConfigurationError, ForkedError, MemoryRegistrationError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import bytes_of, finish, segments_of
from trunkline.testing.waiting import PATIENCE


class Answer:
    """What a store answers to a read."""

    def __init__(self, data: bytes, tag: str) -> None:
        self.meta = {"size": len(data), "e_tag": tag}
        self._data = data

    async def bytes_async(self) -> bytes:
        return self._data


class CountingStore:
    """Answers with zeros, a moment later, and counts how much it is asked at once."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.requests = 0
        self.tags = iter(["same"] * 1000)

    async def get_async(self, key: str, *, options: dict[str, Any]) -> Answer:
        await self._answer(1)
        start, end = options["range"]
        return Answer(bytes(end - start), next(self.tags))

    async def put_async(self, key: str, data: Any, *, max_concurrency: int = 1, **_: Any) -> None:
        await self._answer(max_concurrency)

    async def head_async(self, key: str) -> dict[str, Any]:
        await self._answer(1)
        return {"size": 7, "last_modified": datetime.fromtimestamp(1.5, UTC), "e_tag": None, "version": "3"}

    async def _answer(self, requests: int) -> None:
        self.requests += 1
        self.now += requests
        self.most = max(self.most, self.now)
        for _ in range(5):
            await asyncio.sleep(0)
        self.now -= requests


def opened_on(store: Any, **options: Any) -> Any:
    return opened(store=store, max_retries=None, **options)


def test_no_more_requests_at_once_than_allowed() -> None:
    store = CountingStore()
    keys = [f"key-{number}" for number in range(12)]
    with opened_on(store, concurrency=5) as backend:
        memory = np.zeros(60 * MIB, np.uint8)
        requests = [
            request_of(backend, Operation.WRITE, memory, *keys),
            request_of(backend, Operation.WRITE, memory, "whole"),
            request_of(backend, Operation.WRITE, memory, "one", "two"),
            request_of(backend, Operation.READ, memory, "whole"),
        ]
        for request in requests:
            assert request.post() == Status.IN_PROGRESS
        assert [finish(request, request.poll()) for request in requests] == [Status.DONE] * 4
        assert store.most == 5
        assert store.requests == 12 + 1 + 2 + 12
        assert len(backend.query(MemoryKind.OBJECT, keys)) == 12
    assert store.most == 5
    assert store.now == 0


def test_an_object_that_is_replaced_while_it_is_read() -> None:
    store = CountingStore()
    store.tags = iter(["one", "one", "other"])
    with opened_on(store) as backend:
        request = request_of(backend, Operation.READ, np.zeros(12 * MIB, np.uint8), "key")
        assert finish(request, request.post()) == Status.FAILED
        assert "the object was replaced while it was read: read it again" in request.reason


def test_an_exception_that_nobody_expects_ends_the_request() -> None:
    with opened_on(object()) as backend:
        request = request_of(backend, Operation.READ, np.zeros(100, np.uint8), "key")
        assert finish(request, request.post()) == Status.FAILED
        assert "READ of bytes 0 to 99 of object://" in request.reason
        assert "get_async" in request.reason


def test_refuses_to_write_an_object_in_part() -> None:
    store = MemoryStore()
    store.put("key", b"before")
    with opened_on(store) as backend:
        request = request_of(backend, Operation.WRITE, np.zeros(100, np.uint8), "key", offset=50)
        assert request.post() == Status.FAILED
        assert request.reason.startswith("bytes 0 to 49 of object 'key' are missing")
        assert request.completed == 0
    assert bytes(store.get("key").bytes()) == b"before"


def test_a_device_number_is_the_key_of_an_object_without_a_name() -> None:
    store = MemoryStore()
    with opened_on(store) as backend:
        request = request_of(backend, Operation.WRITE, np.arange(200, dtype=np.uint8), "", "named")
        assert finish(request, request.post()) == Status.DONE
    assert bytes(store.get("0").bytes()) == bytes(range(100))
    assert bytes(store.get("named").bytes()) == bytes(range(100, 200))


@pytest.mark.parametrize("key", ["/absolute", "folder/", "a//b", "a/../b", "."])
def test_refuses_keys_that_a_store_would_change(key: str) -> None:
    with opened_on(MemoryStore()) as backend:
        with pytest.raises(MemoryRegistrationError, match=r"can't tell key .* none was registered"):
            backend.register(MemoryKind.OBJECT, np.array([[0, 1, 0], [0, 1, 1]], np.uint64), ["fine", key])
        with pytest.raises(MemoryRegistrationError, match="1 names were given for 2 objects"):
            backend.register(MemoryKind.OBJECT, np.array([[0, 1, 0], [0, 1, 1]], np.uint64), ["fine"])
        with pytest.raises(MemoryRegistrationError, match="no object is like that"):
            backend.register(MemoryKind.OBJECT, np.array([[0, 2**60, 0]], np.uint64), ["fine"])
        assert backend.outstanding == 0


def test_rows_have_to_lie_in_registered_segments() -> None:
    with opened_on(MemoryStore()) as backend:
        request = request_of(backend, Operation.READ, np.zeros(100, np.uint8), "key")
        backend.deregister(request.posting.remote_slot)
        assert request.post() == Status.FAILED
        assert request.reason == "a segment of this transfer is registered no more"
        again = backend.prepare(request.posting, None)
        assert again.post() == Status.FAILED
        assert again.reason == "row 0: 100 bytes at 0x0 of an object are not in registered segment 1"


def test_asks_about_objects_only(tmp_path: Path) -> None:
    with opened_on(CountingStore()) as backend:
        assert backend.query(MemoryKind.OBJECT, ["key"]) == [{"size": "7", "mtime": "1.500000", "version": "3"}]
        with pytest.raises(BackendError, match="can't be asked about FILE"):
            backend.query(MemoryKind.FILE, ["key"])
    with pytest.raises(ClosedError):
        backend.query(MemoryKind.OBJECT, ["key"])
    with opened_on(LocalStore(tmp_path)) as backend:
        (tmp_path / "key").write_bytes(b"12345")
        found, missing = backend.query(MemoryKind.OBJECT, ["key", "none"])
        assert found is not None
        assert missing is None
        assert found["size"] == "5"


def test_a_store_that_is_open_takes_no_options() -> None:
    with pytest.raises(ConfigurationError, match="store= is open already"):
        ObjectBackend("agent", store=MemoryStore(), region="eu")
    with pytest.raises(ConfigurationError, match="part_size=1: a whole number from 5242880 on"):
        ObjectBackend("agent", url="memory://", part_size=1)


def test_no_part_of_a_failed_or_closed_request_is_kept() -> None:
    with opened_on(MemoryStore()) as backend:
        memory = bytes_of(12 * MIB, 1)
        request = request_of(backend, Operation.READ, memory, "nothing")
        assert finish(request, request.post()) == Status.FAILED
        assert "there is no such object: check the key; 0 of 12,582,912 bytes had arrived" in request.reason
        assert backend.take_finished() == []


def test_a_thousand_registrations_and_backends_leave_nothing(tmp_path: Path) -> None:
    memory = bytes_of(4096, 1)

    def move(backend: ObjectBackend) -> None:
        for operation in Operation:
            request = request_of(backend, operation, memory, "key")
            assert finish(request, request.post()) == Status.DONE, request.reason
            backend.deregister(np.unique(request.posting.local_slot))
            backend.deregister(request.posting.remote_slot)

    def held() -> tuple[int, int, list[str]]:
        gc.collect()
        status = Path("/proc/self/status").read_text().splitlines()
        pinned = [line for line in status if line.startswith(("VmLck", "VmPin"))]
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), pinned

    (tmp_path / "key").write_bytes(memory.tobytes())
    with opened_on(LocalStore(tmp_path)) as backend:
        move(backend)  # what is made once for the process is there from now on
    before = held()
    with opened_on(LocalStore(tmp_path)) as backend:
        move(backend)
        during = held()
        for _ in range(1000):
            slots = backend.register(MemoryKind.DRAM, np.repeat(segments_of(memory), 10, axis=0))
            backend.deregister(slots)
            move(backend)
        assert backend.outstanding == 0
        assert held() == during
        assert len(backend._table.keys) <= 32
        assert not backend._worker._running
        assert not backend._worker._rounds
    for _ in range(50):
        with opened_on(LocalStore(tmp_path)) as backend:
            move(backend)
    assert held() == before


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_child_process_is_told_though_the_lock_was_taken() -> None:
    with opened_on(MemoryStore()) as backend:
        request = request_of(backend, Operation.WRITE, np.zeros(100, np.uint8), "key")
        assert finish(request, request.post()) == Status.DONE
        uses = [
            request.post,
            request.poll,
            lambda: request.wait(0),
            request.stop,
            lambda: backend.query(MemoryKind.OBJECT, ["key"]),
            lambda: backend.run(0),
            lambda: backend.outstanding,
            lambda: backend.deregister(request.posting.local_slot),
            backend.take_finished,
        ]
        reading, writing = os.pipe()
        held, forked = threading.Event(), threading.Event()

        def hold() -> None:
            with backend._worker.lock:
                held.set()
                forked.wait(PATIENCE)

        holder = threading.Thread(target=hold, name="holder")
        holder.start()
        held.wait(PATIENCE)
        child = os.fork()
        if not child:
            signal.alarm(int(PATIENCE))
            try:
                for use in uses:
                    with pytest.raises(ForkedError):
                        use()
                backend.close()
                os.write(writing, b"told")
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        forked.set()
        holder.join()
        os.close(writing)
        os.waitpid(child, 0)
        assert os.read(reading, 10) == b"told"
        os.close(reading)
        assert finish(request, request.post()) == Status.DONE


class HangingStore:
    """Never answers."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()

    async def head_async(self, key: str) -> None:
        self.is_asked.set()
        await asyncio.Event().wait()


def test_closing_ends_a_question_at_once() -> None:
    store = HangingStore()
    with opened_on(store) as backend:
        ends: list[type[Exception]] = []

        def ask() -> None:
            try:
                backend.query(MemoryKind.OBJECT, ["a", "b"])
            except Exception as error:
                ends.append(type(error))

        thread = threading.Thread(target=ask, name="ask")
        thread.start()
        assert store.is_asked.wait(PATIENCE)
        began = time.monotonic()
        backend.close()
        assert time.monotonic() - began < DRAIN
        thread.join(PATIENCE)
        assert ends == [ClosedError]


class RefusingStore(CountingStore):
    """Refuses every question, a moment later."""

    async def head_async(self, key: str) -> dict[str, Any]:
        await super().head_async(key)
        raise PermissionError("not for you")


def test_one_question_that_fails_is_the_last() -> None:
    store = RefusingStore()
    with opened_on(store, concurrency=1) as backend:
        with pytest.raises(BackendError, match="asking about refusing://key-0 failed: not for you"):
            backend.query(MemoryKind.OBJECT, [f"key-{number}" for number in range(50)])
        store.requests = 0
        with pytest.raises(BackendError):
            backend.query(MemoryKind.OBJECT, ["last"])
        assert store.requests == 1


@pytest.mark.parametrize("lacking", ["threads", "files"])
def test_a_thread_that_can_not_be_started_is_tried_again_at_the_next_use(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread") if lacking == "threads" else OSError(errno.EMFILE, "too many")

    with opened_on(MemoryStore()) as backend:
        request = request_of(backend, Operation.WRITE, np.zeros(100, np.uint8), "key")
        with monkeypatch.context() as patch:
            if lacking == "threads":
                patch.setattr(threading.Thread, "start", refuse)
            else:
                patch.setattr(asyncio, "new_event_loop", refuse)
            for use in (request.post, lambda: backend.query(MemoryKind.OBJECT, ["key"])):
                with pytest.raises(BackendError, match=r"can't start its thread .*: raise the limits"):
                    use()
        assert request.poll() == Status.IDLE
        assert not backend._worker._running
        assert finish(request, request.post()) == Status.DONE


def test_takes_the_secrets_of_a_store_that_is_open_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "FromEnvironment")

    class OpenStore:
        config: ClassVar = {"bucket": "b", "secret_access_key": "FromConfig"}

        async def head_async(self, key: str) -> None:
            raise ValueError("FromConfig and FromEnvironment are wrong")

    with opened_on(OpenStore()) as backend:
        with pytest.raises(BackendError) as caught:
            backend.query(MemoryKind.OBJECT, ["key"])
        assert str(caught.value) == "asking about open://b/key failed: *** and *** are wrong"


def test_closing_wakes_who_waits() -> None:
    with opened_on(MemoryStore()) as backend:
        errors: list[Exception] = []

        def run() -> None:
            try:
                backend.run(time.monotonic() + PATIENCE)
            except ClosedError as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="run")
        thread.start()
        backend.close()
        thread.join(PATIENCE)
        assert len(errors) == 1
