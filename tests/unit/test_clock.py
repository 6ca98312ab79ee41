from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from trunkline.clock import SYSTEM_CLOCK, Clock, Deadline
from trunkline.testing.clock import FakeClock


def test_a_deadline_counts_down_to_zero_and_no_further() -> None:
    clock = FakeClock()
    deadline = Deadline(5, clock)
    assert (deadline.remaining(), deadline.remaining(at_most=2), deadline.has_passed) == (5, 2, False)
    clock.advance(4)
    assert (deadline.remaining(), deadline.remaining(at_most=2), deadline.elapsed) == (1, 1, 4)
    clock.advance(4)
    assert (deadline.remaining(), deadline.has_passed, deadline.elapsed) == (0, True, 8)


def test_no_timeout_is_no_deadline() -> None:
    clock = FakeClock()
    deadline = Deadline(None, clock)
    clock.advance(1e9)
    assert (deadline.remaining(), deadline.remaining(at_most=3), deadline.has_passed) == (None, 3, False)


def test_a_negative_timeout_has_passed_at_once() -> None:
    assert Deadline(-1, FakeClock()).has_passed


@pytest.mark.parametrize("clock", [SYSTEM_CLOCK, FakeClock()])
def test_waiting_for_what_is_set_or_not_at_all_returns_at_once(clock: Clock) -> None:
    event = threading.Event()
    assert clock.wait(event, 0) is False
    event.set()
    assert clock.wait(event, None) is True


@pytest.mark.parametrize("clock", [SYSTEM_CLOCK, FakeClock()])
def test_setting_the_event_ends_the_wait(clock: Clock) -> None:
    event = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(clock.wait, event, None)
        event.set()
        assert waiting.result(30) is True


def test_advancing_ends_the_wait_when_its_time_has_come() -> None:
    clock, event = FakeClock(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(clock.wait, event, 5)
        clock.until_waiting()
        clock.advance(4.5)
        clock.until_waiting()
        assert not waiting.done()
        clock.advance(0.5)
        assert waiting.result(30) is False


def test_nobody_waiting_is_said() -> None:
    with pytest.raises(AssertionError, match="0 threads"):
        FakeClock().until_waiting(at_most=0)
