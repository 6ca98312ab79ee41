"""Reminders: what was replaced, dropped or closed is not done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.agent.reminder import Reminder, Reminders
from trunkline.directory.upkeep import Upkeep
from trunkline.testing.clock import FakeClock
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def upkeep(clock: FakeClock) -> Iterator[Upkeep]:
    upkeep = Upkeep(clock)
    yield upkeep
    upkeep.close()


@pytest.fixture
def reminders(upkeep: Upkeep) -> Reminders:
    return Reminders(upkeep)


@pytest.fixture
def done() -> list[str]:
    return []


def do(done: list[str], what: str) -> Callable[[Reminder], None]:
    return lambda _: done.append(what)


def test_each_agent_has_one(reminders: Reminders, clock: FakeClock, upkeep: Upkeep, done: list[str]) -> None:
    reminders.put("a", 1, do(done, "replaced"))
    reminders.put("a", 2, do(done, "a"))
    reminders.put("b", 2, do(done, "dropped"))
    reminders.put("c", 2, do(done, "c"))
    reminders.drop("b")
    reminders.drop("d")
    assert len(upkeep._due) == 2
    clock.advance(2)
    eventually(lambda: sorted(done) == ["a", "c"])


def test_one_that_is_late_does_not_count(reminders: Reminders, clock: FakeClock) -> None:
    """It was dropped or replaced after the upkeep had called it, and before it was acted upon."""
    called: list[Reminder] = []
    for count in (1, 2):
        reminders.put("a", 1, called.append)
        clock.advance(1)
        eventually(lambda count=count: len(called) == count)  # type: ignore[misc]
    first, second = called
    assert not reminders.take("a", first)
    assert reminders.take("a", second)
    assert not reminders.take("a", second)


def test_none_is_put_once_they_are_closed(reminders: Reminders, upkeep: Upkeep, done: list[str]) -> None:
    reminders.put("a", 1, do(done, "a"))
    reminders.close()
    reminders.close()
    reminders.put("b", 1, do(done, "b"))
    assert upkeep._due == {}
