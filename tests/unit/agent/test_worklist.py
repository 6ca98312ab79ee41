"""Steps for agents: in order for each of them, at the same time for several, and none after the end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from trunkline.agent.worklist import THREADS, Worklist
from trunkline.clock import Deadline
from trunkline.errors import ClosedError
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    import pytest

PATIENCE = 20.0


def test_steps_of_one_agent_run_in_order() -> None:
    worklist, done = Worklist("a"), list[int]()
    for number in range(200):
        worklist.put("b", lambda number=number: done.append(number))  # type: ignore[misc]
    eventually(lambda: not worklist.is_busy("b"))
    assert done == list(range(200))


def test_an_agent_that_does_not_answer_delays_no_other() -> None:
    worklist, released, done = Worklist("a"), threading.Event(), threading.Event()
    worklist.put("slow", lambda: assert_set(released))
    worklist.put("slow", done.set)
    other = threading.Event()
    worklist.put("quick", other.set)
    assert other.wait(PATIENCE)
    assert worklist.is_busy("slow")
    assert not done.is_set()
    released.set()
    assert done.wait(PATIENCE)


def test_more_agents_than_threads_are_worked_off() -> None:
    worklist, released = Worklist("a"), threading.Event()
    for number in range(5 * THREADS):
        worklist.put(f"b{number}", lambda: assert_set(released))
    assert sum(thread.name == "trunkline-follow-a" for thread in threading.enumerate()) == THREADS
    released.set()
    eventually(lambda: not any(worklist.is_busy(f"b{number}") for number in range(5 * THREADS)))
    eventually(lambda: all(thread.name != "trunkline-follow-a" for thread in threading.enumerate()))


def test_a_step_that_fails_ends_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    worklist, done = Worklist("a"), threading.Event()

    def fail() -> None:
        raise ValueError("bad metadata")

    def find_closed() -> None:
        raise ClosedError("the store is closed")

    worklist.put("b", fail)
    worklist.put("b", find_closed)
    worklist.put("b", done.set)
    assert done.wait(PATIENCE)
    assert [record.message for record in caplog.records] == ["agent 'a' could not follow 'b'"]


def test_closing_waits_for_what_is_under_way_and_drops_the_rest() -> None:
    worklist, begun, released = Worklist("a"), threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        begun.set()
        assert_set(released)
        done.append("under way")

    worklist.put("b", work)
    worklist.put("b", lambda: done.append("dropped"))
    assert begun.wait(PATIENCE)
    worklist.close(Deadline(0.0))
    worklist.put("c", lambda: done.append("too late"))
    released.set()
    worklist.close(Deadline(PATIENCE))
    assert done == ["under way"]
    assert not worklist.is_busy("c")


def test_closing_from_a_step_does_not_wait_for_itself() -> None:
    worklist, done = Worklist("a"), threading.Event()

    def end() -> None:
        worklist.close(Deadline(None))
        done.set()

    worklist.put("b", end)
    assert done.wait(PATIENCE)


def assert_set(event: threading.Event) -> None:
    assert event.wait(PATIENCE)
