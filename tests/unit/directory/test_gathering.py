from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.directory.event import (
    LeaveReason,
    PeerJoined,
    PeerLeft,
    PeerSuspect,
    PeerUpdated,
    StoreBack,
    StoreLost,
    Synced,
)
from trunkline.directory.gathering import LOOK_TIMEOUT, Gathering, wait_gathered
from trunkline.directory.view import AgentListing
from trunkline.directory.watch import DirectoryWatch
from trunkline.errors import StoreAuthError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from trunkline.testing.clock import FakeClock


def agent(name: str, **facts: object) -> AgentListing:
    return AgentListing(name, "1" * 32, **facts)  # type: ignore[arg-type]


def names(gathering: Gathering) -> list[str]:
    return [each.name for each in gathering.present]


@pytest.fixture
def watch(clock: FakeClock) -> DirectoryWatch:
    return DirectoryWatch("*", {}, clock=clock, on_close=lambda _: None)


class Waiting:
    """Waits on a thread."""

    def __init__(self, watch: DirectoryWatch, clock: FakeClock, threads: ThreadPoolExecutor) -> None:
        self.seen: list[list[str]] = []
        self._watch = watch
        self._clock = clock
        self._threads = threads

    def start(self, count: int, timeout: float | None) -> Future[Gathering]:
        """Return what comes of it, once nothing is left to be read."""
        found = self._threads.submit(
            wait_gathered,
            self._watch,
            count,
            timeout,
            clock=self._clock,
            on_change=lambda now: self.seen.append(names(now)),
        )
        self._clock.until_waiting(1)
        return found


@pytest.fixture
def waiting(watch: DirectoryWatch, clock: FakeClock, threads: ThreadPoolExecutor) -> Waiting:
    return Waiting(watch, clock, threads)


def test_those_that_drain_or_are_suspect_are_there_and_do_not_count() -> None:
    gathering = Gathering()
    for event in (
        PeerJoined(agent("c")),
        PeerJoined(agent("b", state="draining")),
        PeerJoined(agent("a")),
        PeerSuspect(agent("a", is_suspect=True)),
    ):
        gathering.apply(event)
    assert names(gathering) == ["c"]
    assert [each.name for each in gathering.unusable] == ["a", "b"]
    gathering.apply(PeerUpdated(agent("b")))
    gathering.apply(PeerJoined(agent("a")))
    gathering.apply(PeerLeft(agent("c"), LeaveReason.EXPIRED))
    assert names(gathering) == ["a", "b"]
    assert not gathering.unusable


def test_nobody_counts_before_everybody_is_known(watch: DirectoryWatch, waiting: Waiting) -> None:
    watch.offer(PeerJoined(agent("a")))
    found = waiting.start(1, 5)
    assert not found.done()
    watch.offer(PeerJoined(agent("b")))
    watch.offer(Synced())
    assert names(found.result(30)) == ["a", "b"]


def test_one_that_left_before_its_news_was_read_does_not_count(
    watch: DirectoryWatch, waiting: Waiting, clock: FakeClock
) -> None:
    for event in (Synced(), PeerJoined(agent("a")), PeerLeft(agent("a"), LeaveReason.WITHDRAWN)):
        watch.offer(event)
    found = waiting.start(1, 5)
    clock.advance(5)
    assert names(found.result(30)) == []
    assert waiting.seen[0] == []


def test_it_waits_until_there_are_enough(watch: DirectoryWatch, waiting: Waiting, clock: FakeClock) -> None:
    watch.offer(Synced())
    found = waiting.start(2, None)
    watch.offer(PeerJoined(agent("a")))
    while waiting.seen[-1] != ["a"]:
        pass
    clock.advance(1e6)
    assert not found.done()
    watch.offer(PeerJoined(agent("b")))
    assert names(found.result(30)) == ["a", "b"]


def test_the_end_of_the_time_gives_who_is_there(watch: DirectoryWatch, waiting: Waiting, clock: FakeClock) -> None:
    watch.offer(Synced())
    watch.offer(PeerJoined(agent("a")))
    found = waiting.start(2, 5)
    clock.advance(5)
    gathering = found.result(30)
    assert (names(gathering), gathering.is_synced, gathering.outage) == (["a"], True, None)


def test_without_time_those_count_that_are_there(watch: DirectoryWatch, waiting: Waiting) -> None:
    found = waiting.start(1, 0)
    watch.offer(PeerJoined(agent("a")))
    watch.offer(Synced())
    assert names(found.result(30)) == ["a"]


def test_without_time_too_few_are_told_at_once(
    watch: DirectoryWatch, waiting: Waiting, threads: ThreadPoolExecutor
) -> None:
    watch.offer(Synced())
    assert names(threads.submit(wait_gathered, watch, 1, 0, on_change=lambda _: None).result(30)) == []


def test_without_time_the_store_still_has_some(waiting: Waiting, clock: FakeClock) -> None:
    found = waiting.start(1, 0)
    clock.advance(LOOK_TIMEOUT / 2)
    assert not found.done()
    clock.advance(LOOK_TIMEOUT / 2)
    assert not found.result(30).is_synced


def test_nobody_counts_while_the_store_is_away(watch: DirectoryWatch, waiting: Waiting, clock: FakeClock) -> None:
    for event in (Synced(), StoreLost("etcd is away"), PeerJoined(agent("a"))):
        watch.offer(event)
    found = waiting.start(1, 5)
    assert not found.done()
    watch.offer(StoreBack())
    assert names(found.result(30)) == ["a"]

    watch.offer(StoreLost("etcd is away"))
    found = waiting.start(1, 5)
    clock.advance(5)
    assert found.result(30).outage == "etcd is away"


def test_a_store_that_refuses_ends_the_waiting(watch: DirectoryWatch, waiting: Waiting) -> None:
    found = waiting.start(1, 5)
    watch.fail(StoreAuthError("no right to watch"))
    with pytest.raises(StoreAuthError, match="no right"):
        found.result(30)
