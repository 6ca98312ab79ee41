from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import pytest

from trunkline.clock import SYSTEM_CLOCK
from trunkline.errors import ClosedError, StoreAuthError
from trunkline.etcd.value import Interruption, Listing
from trunkline.etcd.watch import Watch
from trunkline.etcd.watch_stream import CANCEL_DELAY, DENIAL_PAUSE, WatchStream
from trunkline.testing.clock import FakeClock
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


class Connection:
    """Opens no stream, and lets the test act in the midst of its closing."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.on_closing: Any = None

    def check_process(self) -> None:
        pass

    def check_usable(self) -> None:
        if self.closed.is_set():
            raise ClosedError("closed")

    def open_stream(self, *_: Any, **__: Any) -> Any:
        self.closed.wait(30)
        raise ClosedError("closed")

    def pause(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        if self.on_closing is not None:
            self.on_closing()
        self.closed.set()


def test_a_watch_opened_while_the_stream_closes_does_not_wait_for_ever() -> None:
    connection = Connection()
    stream = WatchStream(cast("Any", connection), SYSTEM_CLOCK, cast("Any", None), cast("Any", None))
    opened = []
    connection.on_closing = lambda: opened.append(stream.open_watch(b"k", b"", None))
    stream.close()
    with pytest.raises(ClosedError):
        opened[0].next(5)
    with pytest.raises(ClosedError):
        stream.open_watch(b"k", b"", None)


class SilentServer(Connection):
    """Opens one stream, on which nothing comes; the test takes what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.has_stream = threading.Event()
        self.requests: Iterator[Any] = iter(())

    def open_stream(self, *arguments: Any, **_: Any) -> Any:
        self.requests = arguments[1]
        self.has_stream.set()
        self.closed.wait(30)
        raise ClosedError("closed")


def test_the_server_hears_of_closed_watches_a_little_later_and_after_new_ones() -> None:
    server, clock = SilentServer(), FakeClock()
    stream = WatchStream(cast("Any", server), clock, cast("Any", None), cast("Any", None))
    first, second = (stream.open_watch(key, b"", 1) for key in (b"a", b"b"))
    assert server.has_stream.wait(30)
    assert [next(server.requests).create_request.key for _ in range(2)] == [b"a", b"b"]
    with ThreadPoolExecutor(1) as thread:
        first.close()
        sent = thread.submit(next, server.requests)
        clock.until_waiting(1)
        clock.advance(CANCEL_DELAY / 2)
        second.close()
        stream.open_watch(b"c", b"", 1)
        assert sent.result(30).create_request.key == b"c"
        sent = thread.submit(lambda: [next(server.requests).cancel_request.watch_id for _ in range(2)])
        clock.until_waiting(1)
        assert not sent.done()
        clock.advance(CANCEL_DELAY / 2)
        assert sent.result(30) == [1, 2]
        sent = thread.submit(next, server.requests, None)
        clock.until_waiting(1)
        clock.advance(60)
        assert not sent.done()
        stream.close()
        assert sent.result(30) is None


def test_a_watch_is_asked_for_once_however_many_there_are_and_not_after_it_was_closed() -> None:
    server, clock = SilentServer(), FakeClock()
    stream = WatchStream(cast("Any", server), clock, cast("Any", None), cast("Any", None))
    watches = [stream.open_watch(b"%d" % number, b"", 1) for number in range(100)]
    assert server.has_stream.wait(30)
    watches[3].close()
    keys = [next(server.requests).create_request.key for _ in range(99)]
    assert keys == [b"%d" % number for number in range(100) if number != 3]
    stream.open_watch(b"late", b"", 1)
    assert next(server.requests).create_request.key == b"late"
    stream.close()


def test_a_watch_that_lost_its_right_asks_again_until_it_has_it_back() -> None:
    denied = StoreAuthError("permission denied")
    answers: list[Listing | StoreAuthError] = [Listing((), 5, 1), denied, denied, Listing((), 9, 1)]

    def list_range(*_: Any) -> Listing:
        answer = answers.pop(0)
        if isinstance(answer, StoreAuthError):
            raise answer
        return answer

    server, clock = SilentServer(), FakeClock()
    stream = WatchStream(cast("Any", server), clock, list_range, cast("Any", None))
    watch = stream.open_watch(b"k", b"", None)
    assert server.has_stream.wait(30)
    next(server.requests)
    assert watch.next(0) == Listing((), 5, 1)
    with stream._lock:  # what a compaction does
        stream._attachment.forget(watch)
        watch.lose_history()
        stream._attachment.attach_soon(watch)
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(next, server.requests)
        clock.until_waiting(1)
        assert len(answers) == 2

        def is_sent() -> bool:
            clock.advance(DENIAL_PAUSE)
            return sent.done()

        eventually(is_sent)
        assert sent.result(30).create_request.start_revision == 10
    assert [watch.next(0) for _ in range(3)] == [Interruption("permission denied"), Listing((), 9, 1), None]
    stream.close()


def test_a_watch_that_never_had_the_right_ends() -> None:
    def list_range(*_: Any) -> Listing:
        raise StoreAuthError("permission denied")

    server = SilentServer()
    stream = WatchStream(cast("Any", server), FakeClock(), list_range, cast("Any", None))
    watch = stream.open_watch(b"k", b"", None)
    assert server.has_stream.wait(30)
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(next, server.requests, None)
        with pytest.raises(StoreAuthError, match="permission denied"):
            watch.next(30)
        stream.close()
        assert sent.result(30) is None


class RefusingServer(SilentServer):
    """Lets nobody in for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: list[StoreAuthError] = []
        self.pauses = 0

    def open_stream(self, *arguments: Any, **options: Any) -> Any:
        if self.refusals:
            raise self.refusals.pop(0)
        return super().open_stream(*arguments, **options)

    def pause(self, seconds: float) -> None:
        self.pauses += 1


def test_who_is_let_in_no_more_tries_again_and_a_new_watch_ends() -> None:
    listing = Listing((), 5, 1)
    server = RefusingServer()
    server.refusals = [StoreAuthError("authentication failed")] * 3
    stream = WatchStream(cast("Any", server), FakeClock(), lambda *_: listing, cast("Any", None))
    known = Watch(b"k", b"", 3, **watch_settings(stream))
    known.has_history = True
    stream._watches[known] = None
    new = stream.open_watch(b"new", b"", 3)
    with pytest.raises(StoreAuthError, match="authentication failed"):
        new.next(30)
    assert server.has_stream.wait(30)
    assert server.pauses == 3
    assert next(server.requests).create_request.start_revision == 6
    assert [known.next(0) for _ in range(3)] == [Interruption("authentication failed"), listing, None]
    stream.close()


def watch_settings(stream: WatchStream) -> dict[str, Any]:
    def nothing(*_: Any) -> None:
        pass

    return {
        "clock": stream._clock,
        "lock": stream._lock,
        "check_process": nothing,
        "on_demand": nothing,
        "on_close": nothing,
    }
