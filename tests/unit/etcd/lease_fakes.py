"""A connection whose streams refresh leases as told, and a keeper on it, on a clock that stands still."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from tests.unit.etcd.fakes import FakeCall, FakeRpcError

from trunkline.errors import ClosedError
from trunkline.etcd.config import EtcdConfig
from trunkline.etcd.connection import Stream
from trunkline.etcd.lease import Lease
from trunkline.etcd.lease_keeper import LeaseKeeper
from trunkline.etcd.messages import LEASE_KEEP_ALIVE
from trunkline.testing.clock import FakeClock
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SILENCE = -1


class CountingClock(FakeClock):
    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        self.waits += 1
        return super().wait(event, timeout)


class Endpoint(NamedTuple):
    endpoint: str


class Server:
    """A connection whose streams answer refreshes with a TTL, end with an error, or stay silent."""

    def __init__(self, clock: FakeClock, endpoints: int) -> None:
        self.clock = clock
        self.endpoints = [Endpoint(f"{number}:1") for number in range(endpoints)]
        self.config = EtcdConfig(tuple(each.endpoint for each in self.endpoints))
        self.answers: dict[int, int | FakeRpcError] = {}
        self.stopped: set[str] = set()  # endpoints whose streams open and stay silent
        self.refusals: list[Exception] = []  # for the next streams that are opened
        self.streams: list[Stream] = []
        self.sent: list[tuple[int, int]] = []  # number of the stream, id of the lease
        self.on_sent: Callable[[int], object] = lambda _number: None  # called on the sender's thread
        self.forgotten: list[str | None] = []
        self.pauses: list[float] = []
        self.opening = threading.Event()
        self.may_open = threading.Event()
        self.may_open.set()
        self.closed = threading.Event()
        self._current = 0

    @property
    def refreshed(self) -> list[int]:
        return [number for _, number in self.sent]

    def open_stream(self, method: Any, requests: Iterator[Any], *, operation: str) -> Stream:
        assert method is LEASE_KEEP_ALIVE
        self.opening.set()
        while not self.may_open.is_set() and not self.closed.is_set():
            self.may_open.wait(0.001)
        if self.closed.is_set():
            raise ClosedError("closed")
        if self.refusals:
            raise self.refusals.pop(0)
        index, channel = len(self.streams), self.endpoints[self._current]

        def take(call: FakeCall, request: Any) -> None:
            answer = SILENCE if channel.endpoint in self.stopped else self.answers.get(request.ID, SILENCE)
            if isinstance(answer, FakeRpcError):
                call.break_off(answer)
            elif answer != SILENCE:
                call.answer(LEASE_KEEP_ALIVE.response(ID=request.ID, TTL=answer))
            self.sent.append((index, request.ID))
            self.on_sent(request.ID)

        token = f"token {len(self.forgotten)}"
        call = FakeCall(requests, take)
        self.streams.append(Stream(cast("Any", channel), token, call))
        call.sender.start()
        return self.streams[-1]

    def leave(self, channel: Any) -> None:
        assert channel is self.endpoints[self._current]
        self._current = (self._current + 1) % len(self.endpoints)

    def pause(self, seconds: float | None) -> None:
        assert seconds is not None
        self.pauses.append(seconds)
        self.clock.wait(self.closed, seconds)

    def forget_token(self, token: str | None) -> None:
        self.forgotten.append(token)

    def check_process(self) -> None:
        pass

    def close(self) -> None:
        self.closed.set()
        for stream in self.streams:
            stream.call.cancel()


class Bench:
    """A keeper, its server and its leases."""

    def __init__(self, endpoints: int = 1) -> None:
        self.clock = CountingClock()
        self.server = Server(self.clock, endpoints)
        self.keeper = LeaseKeeper(cast("Any", self.server), self.clock)
        self.lost: list[int] = []
        self.leases: dict[int, Lease] = {}

    def grant(self, number: int, ttl: float, *, answer: int | FakeRpcError | None = None, on_lost: Any = None) -> Lease:
        self.server.answers[number] = int(ttl) if answer is None else answer
        lease = self.leases[number] = Lease(
            number,
            ttl,
            self.clock.monotonic(),
            keeper=self.keeper,
            revoke=lambda _number, _timeout: None,
            on_lost=on_lost or (lambda: self.lost.append(number)),
        )
        self.keeper.add(lease)
        self.clock.until_waiting()
        return lease

    def advance(self, seconds: float, refreshes: int = 1) -> None:
        """Move on, until so many more refreshes went out, their answers were read and the keeper waits again."""
        expected = len(self.server.sent) + refreshes
        self.clock.advance(seconds)
        eventually(lambda: len(self.server.sent) == expected)
        self.settle()
        self.clock.until_waiting()

    def settle(self) -> None:
        """Return once all answers were read."""
        eventually(lambda: self.call(-1).is_read)

    def until(self, condition: Callable[[], object]) -> None:
        """Move on in small steps until something holds."""
        for _ in range(1000):
            if condition():
                return
            self.clock.advance(0.05)
            threading.Event().wait(0.002)
        raise AssertionError(self.server.sent)

    def is_refreshed(self, number: int) -> bool:
        return self.leases[number].refreshed_at == self.clock.monotonic()

    def call(self, index: int) -> FakeCall:
        return cast("FakeCall", self.server.streams[index].call)
