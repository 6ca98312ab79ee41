"""A scripted channel, a stream and gRPC's errors, for tests of what is above them."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trunkline.etcd.channel import Metadata
    from trunkline.etcd.config import EtcdConfig
    from trunkline.etcd.messages import Method


class FakeRpcError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str = "") -> None:
        super().__init__(details)
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


def unavailable(details: str = "refused") -> FakeRpcError:
    return FakeRpcError(grpc.StatusCode.UNAVAILABLE, details)


class FakeChannel:
    """Answers each call with the next item of its script: an exception, a response, or a function of the call."""

    def __init__(self, endpoint: str, _config: EtcdConfig) -> None:
        self.endpoint = endpoint
        self.script: list[Any] = []
        self.calls: list[tuple[Method, Any, float | None, Metadata]] = []
        self.is_closed = False

    def call(self, method: Method, request: Any, timeout: float | None, metadata: Metadata) -> Any:
        self.calls.append((method, request, timeout, metadata))
        answer = self.script.pop(0) if self.script else method.response()
        if isinstance(answer, BaseException):
            raise answer
        return answer(timeout) if callable(answer) else answer

    def stream(self, method: Method, requests: Iterator[Any], metadata: Metadata) -> Any:
        return method, requests, metadata

    def close(self) -> None:
        self.is_closed = True


def tick(clock: Any, error: Exception) -> Callable[[float | None], Any]:
    """Return a script's item: let the call's time-out pass, then raise."""

    def answer(timeout: float | None) -> Any:
        assert timeout is not None
        clock.advance(timeout)
        raise error

    return answer


class FakeCall:
    """gRPC's side of a stream: pulls the requests on a thread of its own, and is iterated for responses."""

    def __init__(self, requests: Iterator[Any], on_request: Callable[[FakeCall, Any], None]) -> None:
        self._items: queue.Queue[Any] = queue.Queue()
        self._requests = requests
        self._on_request = on_request
        self._is_over = threading.Event()
        self.sender = threading.Thread(target=self._send, daemon=True)  # for the test to start

    @property
    def is_read(self) -> bool:
        """Whether all that came was taken in."""
        return self._is_over.is_set() or not self._items.unfinished_tasks

    def answer(self, response: Any) -> None:
        self._items.put(response)

    def break_off(self, error: FakeRpcError | None) -> None:
        """End it from the server's side, in order if there is no error."""
        self._items.put(error)

    def cancel(self) -> None:
        self._items.put(FakeRpcError(grpc.StatusCode.CANCELLED, "Locally cancelled by application!"))

    def __iter__(self) -> Iterator[Any]:
        while (item := self._items.get()) is not None and not isinstance(item, FakeRpcError):
            yield item
            self._items.task_done()
        self._is_over.set()
        if item is not None:
            raise item

    def _send(self) -> None:
        for request in self._requests:
            if self._is_over.is_set():
                return
            self._on_request(self, request)
