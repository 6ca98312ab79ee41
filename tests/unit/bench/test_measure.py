"""The measuring loops on a clock of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline.bench import measure as module
from trunkline.bench.measure import Lane, Pace, measure
from trunkline.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOOK = 10
"""Nanoseconds that pass at each look at the clock."""


class Time:
    def __init__(self) -> None:
        self.now = 0
        self.step = LOOK

    def look(self) -> int:
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(module, "_now", found.look)
    monkeypatch.setattr("time.sleep", found.sleep)
    return found


class Wire:
    """A request that takes so long after it was posted; the post itself takes 100 ns."""

    def __init__(self, time: Time, durations: Callable[[int], int]) -> None:
        self._time = time
        self._durations = durations
        self.posts = 0
        self.most_at_once = 0
        self._end = 0

    def post(self) -> None:
        self._time.now += 100
        self._end = self._time.now + self._durations(self.posts)
        self.posts += 1

    def poll(self) -> bool:
        return self._time.now >= self._end

    def wait(self, timeout: float) -> None:
        if self._end - self._time.now > timeout * 1e9:
            raise DeadlineError(f"it is still running after {timeout:g} s")
        self._time.now = max(self._time.now, self._end)


CLOSED = Pace(is_recreated=False, rate=0.0, timeout=1.0)


def test_one_after_the_other(time: Time) -> None:
    wire = Wire(time, lambda _: 5_000)
    found = measure([[Lane(lambda: [wire])]], 7, CLOSED)
    assert wire.posts == 7
    assert len(found.ended) == 7
    assert (np.abs(found.transfer - 5_100) <= 5 * LOOK).all()
    assert (np.abs(found.post - 100) <= LOOK).all()
    assert len(found.prepare) == 1  # made once, before
    assert (np.diff(found.began) >= found.transfer[:-1]).all()


def test_requests_that_are_made_anew_count_in_the_latency(time: Time) -> None:
    wire = Wire(time, lambda _: 5_000)

    def make() -> Sequence[Wire]:
        time.now += 1_000
        return [wire]

    found = measure([[Lane(make)]], 4, CLOSED._replace(is_recreated=True))
    assert (np.abs(found.prepare - 1_000) <= LOOK).all()
    assert (found.ended - found.began >= 6_100).all()
    assert (found.transfer < 5_200).all()


def test_so_many_are_under_way_as_there_are_lanes(time: Time) -> None:
    wires = [Wire(time, lambda _: 5_000) for _ in range(3)]
    found = measure([[Lane(lambda wire=wire: [wire]) for wire in wires]], 10, CLOSED)  # type: ignore[misc]
    assert [wire.posts for wire in wires] == [4, 3, 3]
    assert len(found.ended) == 10
    total = found.ended.max() - found.began.min()
    assert total < 10 * 5_100 / 2  # one after the other they would take 51 us


def test_in_an_open_loop_latency_counts_from_when_a_transfer_was_to_begin(time: Time) -> None:
    """One transfer that stalls makes those after it late, though each of them is quick: that is the latency of load."""
    time.step = 1_000
    wire = Wire(time, lambda number: 50_000_000 if number == 2 else 1_000)
    found = measure([[Lane(lambda: [wire])]], 12, CLOSED._replace(rate=100.0))  # one in 10 ms
    latency = (found.ended - found.began) / 1e6
    assert latency[:2].max() < 1
    assert latency[2] == pytest.approx(50, abs=1)
    assert latency[3:7] == pytest.approx([40, 30, 20, 10], abs=1)  # they were to begin while it stalled
    assert latency[8:].max() < 1
    assert (found.transfer[3:] < 1e6).all()
    assert np.diff(found.began) == pytest.approx(10_000_000)


@pytest.mark.parametrize("rate", [0.0, 1_000.0])
def test_a_transfer_that_does_not_end_is_given_up(time: Time, rate: float) -> None:
    time.step = 1_000_000
    wire = Wire(time, lambda _: 10**12)
    with pytest.raises(DeadlineError, match="still running after 1 s"):
        measure([[Lane(lambda: [wire])]], 3, CLOSED._replace(rate=rate))


def test_a_failure_in_one_thread_ends_all() -> None:
    class Broken:
        def post(self) -> None:
            raise DeadlineError("no answer")

        poll = wait = post

    class Endless:
        def post(self) -> None: ...

        def poll(self) -> bool:
            return True

        def wait(self, timeout: float) -> None: ...

    with pytest.raises(DeadlineError, match="no answer"):
        measure([[Lane(lambda: [Endless()])], [Lane(lambda: [Broken()])]], 1 << 40, CLOSED)  # type: ignore[list-item]
