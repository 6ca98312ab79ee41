from __future__ import annotations

from typing import Any, cast

from trunkline.transfer.state import Event
from trunkline.transfer.timers import SLACK, Timers


class Handle:
    """A transfer in its second round, or one that has ended."""

    def __init__(self, round_number: int = 2) -> None:
        self.round_number = round_number

    def is_running(self, round_number: int) -> bool:
        return self.round_number == round_number


def due(timers: Timers, now: float) -> list[tuple[Any, Event | None]]:
    return [*timers.take_due(now)]


def add(timers: Timers, at: float, handle: Handle, round_number: int = 2, event: Event | None = None) -> bool:
    return timers.add(at, cast("Any", handle), round_number, event, active=1)


def test_the_earliest_is_the_next() -> None:
    timers = Timers()
    assert timers.next(60.0) == 60.0
    assert add(timers, 7.0, Handle())
    assert not add(timers, 8.0, Handle())
    assert add(timers, 5.0, Handle())
    assert timers.next(60.0) == 5.0
    assert timers.next(4.0) == 4.0


def test_what_is_due_is_taken_once_in_order_and_only_of_rounds_that_run() -> None:
    timers = Timers()
    expiring, forced, again, later = (Handle() for _ in range(4))
    add(timers, 2.0, forced)
    add(timers, 1.0, expiring, event=Event.EXPIRE)
    add(timers, 1.0, again, round_number=1)  # of a round that has ended
    add(timers, 3.0, later)
    assert due(timers, 2.0) == [(expiring, Event.EXPIRE), (forced, None)]
    assert due(timers, 2.0) == []
    assert timers.next(60.0) == 3.0


def test_timers_of_rounds_that_ended_are_swept() -> None:
    timers = Timers()
    running, ended = Handle(), Handle(0)
    add(timers, 9.0, running)
    for _ in range(10 * SLACK):
        add(timers, 1.0, ended)
    assert len(timers) <= SLACK + 4
    assert due(timers, 9.0) == [(running, None)]
