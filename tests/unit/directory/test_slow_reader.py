"""A watch whose reader is so far behind that it gets the difference."""

from __future__ import annotations

import pytest

from trunkline.directory.event import DirectoryEvent, LeaveReason, NameConflict, PeerJoined, PeerLeft, StoreLost, Synced
from trunkline.directory.view import AgentListing
from trunkline.directory.watch import DirectoryWatch
from trunkline.testing.clock import FakeClock

A, B, C = (AgentListing(name=name, incarnation=name * 32) for name in "abc")


@pytest.fixture
def watch() -> DirectoryWatch:
    return DirectoryWatch("*", {}, clock=FakeClock(), on_close=lambda _: None, queue_limit=2)


def take_all(watch: DirectoryWatch) -> list[DirectoryEvent]:
    events: list[DirectoryEvent] = []
    while (event := watch.next(0)) is not None:
        events.append(event)
    return events


def test_who_left_just_before_the_queue_was_full_has_left(watch: DirectoryWatch) -> None:
    watch.offer(PeerJoined(A))
    watch.offer(PeerJoined(B))
    assert take_all(watch) == [PeerJoined(A), PeerJoined(B)]
    left = [PeerLeft(A, LeaveReason.EXPIRED), PeerLeft(B, LeaveReason.WITHDRAWN)]
    for event in (left[0], PeerJoined(C), left[1]):  # one is queued, and one fills the queue
        watch.offer(event)
    assert take_all(watch) == [*left, PeerJoined(C)]


def test_what_no_difference_shows_is_kept(watch: DirectoryWatch) -> None:
    conflicts = [NameConflict("a", "key", is_lost=is_lost) for is_lost in (False, True)]
    events: list[DirectoryEvent] = [Synced(), PeerJoined(A), *conflicts, StoreLost("away")]
    for event in events:
        watch.offer(event)
    taken = take_all(watch)
    assert isinstance(taken[0], StoreLost)
    assert taken[1:] == [PeerJoined(A), Synced(), *conflicts]
