from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.backend.contract import Operation, Posting, Status
from trunkline.errors import ClosedError, PeerGoneError
from trunkline.memory.kind import MemoryKind
from trunkline.testing.link import ArrayMemory, make_posting, segments_of
from trunkline.testing.stepped import SteppedBackend, SteppedRequest
from trunkline.testing.waiting import PATIENCE, eventually
from trunkline.transfer.combined import CombinedRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = [(0, 0, 8), (16, 16, 8), (32, 32, 8)]


class Parts:
    """Two requests of three rows each on a stepped backend, combined; ``sent`` is what was announced."""

    def __init__(self) -> None:
        self.backend = SteppedBackend("a")
        self.data = [np.arange(64, dtype=np.uint8), np.zeros(64, np.uint8)]
        slots = [self.backend.register(MemoryKind.DRAM, segments_of(each)) for each in self.data]
        posting: Posting = make_posting(
            Operation.WRITE, self.data[0], slots[0], ArrayMemory(self.data[1]), slots[1], ROWS
        )
        self.requests = [self.backend.prepare(posting, None) for _ in range(2)]
        self.sent: list[bytes] = []
        self.failure: Exception | None = None
        self.note: SteppedRequest | None = None
        self.whole = CombinedRequest([(request, len(ROWS)) for request in self.requests], self.send)

    def send(self, payload: bytes) -> SteppedRequest | None:
        if self.failure is not None:
            raise self.failure
        self.sent.append(payload)
        return self.note


@pytest.fixture
def parts() -> Iterator[Parts]:
    made = Parts()
    yield made
    made.backend.close()


def test_announces_once_after_all_parts(parts: Parts) -> None:
    whole = parts.whole
    assert whole.poll() == Status.IDLE
    assert whole.post(b"note") == Status.IN_PROGRESS
    parts.requests[1].complete()
    assert whole.poll() == Status.IN_PROGRESS
    assert whole.completed == 0  # of the leading rows none is known to have arrived
    assert parts.sent == []
    parts.requests[0].complete()
    assert [whole.poll(), whole.wait(time.monotonic())] == [Status.DONE, Status.DONE]
    assert parts.sent == [b"note"]
    assert whole.completed == 6
    assert 0 < whole.post_ns <= whole.total_ns
    assert whole.post() == Status.IN_PROGRESS
    for request in parts.requests:
        request.complete()
    assert whole.poll() == Status.DONE
    assert parts.sent == [b"note"]  # the second round had none


def test_lasts_until_the_notification_was_sent(parts: Parts) -> None:
    note = parts.backend.prepare(parts.requests[0].posting, None)
    note.post()
    parts.note = note
    parts.whole.owner = owner = object()
    parts.whole.post(b"note")
    for request in parts.requests:
        request.complete()
    assert parts.whole.poll() == Status.IN_PROGRESS
    assert note.owner is owner
    note.complete()
    assert parts.whole.poll() == Status.DONE


def test_a_failed_part_stops_the_others_and_announces_nothing(parts: Parts) -> None:
    parts.whole.post(b"note")
    parts.requests[0].advance(1)
    parts.requests[0].fail("torn")
    assert parts.whole.poll() == Status.IN_PROGRESS
    parts.requests[1].drain()
    assert parts.whole.poll() == Status.FAILED
    assert parts.whole.reason == "torn"
    assert parts.whole.completed == 1
    assert parts.sent == []


def test_a_stopped_part_is_no_end_of_the_whole(parts: Parts) -> None:
    parts.whole.post(b"note")
    parts.whole.stop()
    parts.requests[0].complete()
    parts.requests[1].drain()
    assert parts.whole.poll() == Status.STOPPED
    assert parts.sent == []


def test_a_notification_that_can_not_be_sent_fails_it(parts: Parts) -> None:
    parts.failure = PeerGoneError("gone")
    parts.whole.post(b"note")
    for request in parts.requests:
        request.complete()
    assert parts.whole.poll() == Status.FAILED
    assert "the data arrived" in parts.whole.reason
    assert parts.whole.completed == 6


def test_a_part_that_can_not_be_posted(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(notification: bytes | None = None) -> Status:
        raise ClosedError("closed")

    monkeypatch.setattr(parts.requests[1], "post", refuse)
    monkeypatch.setattr(parts.requests[1], "status", Status.IDLE)
    assert parts.whole.post() == Status.IN_PROGRESS  # the first runs, and has to drain
    parts.requests[0].drain()
    assert parts.whole.poll() == Status.FAILED
    assert parts.whole.reason == "closed"
    monkeypatch.setattr(parts.requests[0], "post", refuse)
    with pytest.raises(ClosedError):
        parts.whole.post()


def finished_round(parts: Parts) -> None:
    parts.whole.post()
    for request in parts.requests:
        request.complete()
    assert parts.whole.poll() == Status.DONE


def test_nothing_is_announced_while_another_thread_posts(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_round(parts)
    entered, go_on = threading.Event(), threading.Event()
    seen: list[Status] = []
    post = parts.requests[0].post

    def held(notification: bytes | None = None) -> Status:
        entered.set()
        go_on.wait(PATIENCE)
        return post(notification)

    monkeypatch.setattr(parts.requests[0], "post", held)
    poster = threading.Thread(target=lambda: seen.append(parts.whole.post(b"note")))
    poster.start()
    entered.wait(PATIENCE)
    others = [
        threading.Thread(target=lambda: seen.append(parts.whole.poll())),
        threading.Thread(target=lambda: seen.append(parts.whole.wait(time.monotonic()))),
    ]
    for thread in others:
        thread.start()
        thread.join(0.05)  # it waits; what it may not do is to take the last round's end for this one's
    go_on.set()
    for thread in [poster, *others]:
        thread.join(PATIENCE)
    assert seen == [Status.IN_PROGRESS] * 3
    assert parts.sent == []


def test_a_round_that_could_not_be_posted_announces_nothing(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(notification: bytes | None = None) -> Status:
        raise ClosedError("closed")

    finished_round(parts)
    with monkeypatch.context() as patch:
        patch.setattr(parts.requests[0], "post", refuse)
        with pytest.raises(ClosedError):
            parts.whole.post(b"note")
    assert parts.whole.poll() == Status.IDLE
    assert parts.sent == []
    monkeypatch.setattr(parts.requests[1], "post", refuse)
    parts.whole.post(b"note")
    parts.requests[0].complete()
    assert parts.whole.poll() == Status.FAILED
    assert parts.whole.completed == len(ROWS)  # of this round; the other part's are of the one before
    assert parts.sent == []


def test_who_waits_stops_the_others_when_one_fails(parts: Parts) -> None:
    ends: list[Status] = []
    parts.whole.post(b"note")
    waiter = threading.Thread(target=lambda: ends.append(parts.whole.wait(time.monotonic() + PATIENCE)))
    waiter.start()
    parts.requests[0].fail("torn")
    eventually(lambda: parts.requests[1].is_stopping)
    parts.requests[1].drain()
    waiter.join(PATIENCE)
    assert ends == [Status.FAILED]


def test_a_wait_ends_at_its_time_and_goes_on_over_the_notification(parts: Parts) -> None:
    note = parts.backend.prepare(parts.requests[0].posting, None)
    note.post()
    parts.note = note
    parts.whole.post(b"note")
    for ready in ([], parts.requests[:1], parts.requests[1:]):
        for request in ready:
            request.complete()
        started = time.monotonic()
        assert parts.whole.wait(started + 0.02) == Status.IN_PROGRESS
        assert 0.02 <= time.monotonic() - started < PATIENCE / 10
    threading.Timer(0.02, note.complete).start()
    assert parts.whole.wait(time.monotonic() + PATIENCE) == Status.DONE


def test_stopping_reaches_the_notification(parts: Parts) -> None:
    note = parts.backend.prepare(parts.requests[0].posting, None)
    note.post()
    parts.note = note
    parts.whole.post(b"note")
    before = parts.whole.is_announcing
    for request in parts.requests:
        request.complete()
    parts.whole.poll()
    assert (before, parts.whole.is_announcing) == (False, True)
    parts.whole.stop()
    note.drain()
    assert parts.whole.poll() == Status.STOPPED
    note.post()
    parts.whole.post(b"note")
    for request in parts.requests:
        request.complete()
    parts.whole.poll()
    note.fail("Connection reset")
    assert [parts.whole.poll(), parts.whole.poll()] == [Status.FAILED] * 2
    assert parts.whole.reason == "the data arrived, but the notification could not be sent: Connection reset"
