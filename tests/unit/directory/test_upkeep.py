from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from trunkline.directory.upkeep import Upkeep
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.testing.clock import FakeClock


class Broken:
    """Something that needs some attempts to be mended."""

    def __init__(self, *answers: float | Exception | None) -> None:
        self.answers = list(answers)
        self.attempts = 0

    def mend(self) -> float | None:
        self.attempts += 1
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def upkeep(clock: FakeClock) -> Iterator[Upkeep]:
    upkeep = Upkeep(clock)
    yield upkeep
    upkeep.close()


def is_idle() -> bool:
    return "trunkline-upkeep" not in [thread.name for thread in threading.enumerate()]


def test_it_is_mended_at_once_and_the_thread_ends(upkeep: Upkeep) -> None:
    broken = Broken()
    assert is_idle()
    upkeep.request(broken)
    eventually(lambda: broken.attempts == 1 and is_idle())
    upkeep.request(broken)
    eventually(lambda: broken.attempts == 2 and is_idle())


def test_attempts_are_as_far_apart_as_it_says(upkeep: Upkeep, clock: FakeClock) -> None:
    broken = Broken(5.0)
    upkeep.request(broken, 2.0)
    clock.until_waiting()
    clock.advance(1.9)
    clock.until_waiting()
    assert broken.attempts == 0
    clock.advance(0.1)
    eventually(lambda: broken.attempts == 1)
    clock.until_waiting()
    clock.advance(4.9)
    clock.until_waiting()
    assert broken.attempts == 1
    clock.advance(0.1)
    eventually(lambda: broken.attempts == 2 and is_idle())


def test_the_earliest_request_counts(upkeep: Upkeep, clock: FakeClock) -> None:
    broken = Broken()
    upkeep.request(broken, 9.0)
    clock.until_waiting()
    upkeep.request(broken, 1.0)
    upkeep.request(broken, 5.0)
    clock.advance(1.0)
    eventually(lambda: broken.attempts == 1 and is_idle())


def test_one_that_fails_does_not_keep_others_from_it(upkeep: Upkeep, caplog: pytest.LogCaptureFixture) -> None:
    bad, good = Broken(RuntimeError("worse")), Broken()
    upkeep.request(bad)
    upkeep.request(good)
    eventually(lambda: good.attempts == 1 and is_idle())
    assert bad.attempts == 1
    assert "worse" in caplog.text


def test_what_is_forgotten_is_left_alone(upkeep: Upkeep, clock: FakeClock) -> None:
    broken = Broken()
    upkeep.request(broken, 1.0)
    upkeep.forget(broken)
    eventually(is_idle)
    clock.advance(1.0)
    assert broken.attempts == 0


def test_closing_ends_the_thread_and_takes_nothing_new(upkeep: Upkeep, clock: FakeClock) -> None:
    broken = Broken()
    upkeep.request(broken, 1.0)
    clock.until_waiting()
    upkeep.close()
    assert is_idle()
    upkeep.request(broken)
    upkeep.close()
    assert (is_idle(), broken.attempts) == (True, 0)


def test_it_may_be_closed_by_what_it_mends(upkeep: Upkeep) -> None:
    class Closing(Broken):
        def mend(self) -> float | None:
            upkeep.close()
            return super().mend()

    broken = Closing(1.0)
    upkeep.request(broken)
    eventually(lambda: broken.attempts == 1 and is_idle())


def test_a_thread_that_can_not_start_is_tried_again(upkeep: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    broken = Broken()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            upkeep.request(broken)
    upkeep.request(broken)
    eventually(lambda: broken.attempts == 1 and is_idle())
