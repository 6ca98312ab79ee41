"""What a reader of a watch gets: filtered, bounded, and the difference where it fell behind."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from trunkline.directory.event import (
    DirectoryEvent,
    LeaveReason,
    NameConflict,
    PeerJoined,
    PeerLeft,
    PeerSuspect,
    PeerUpdated,
    StoreBack,
    StoreLost,
)
from trunkline.directory.roster import SYNCED
from trunkline.directory.view import AgentListing
from trunkline.directory.watch import DirectoryWatch
from trunkline.errors import ClosedError, ConfigurationError, ForkedError, StoreAuthError
from trunkline.testing.clock import FakeClock

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

ONE, TWO = "1" * 32, "2" * 32
LOST = StoreLost("no route")


def agent(name: str, incarnation: str = ONE, **fields: Any) -> AgentListing:
    return AgentListing(name, incarnation, **{"labels": {"metadata": 1}, **fields})


class Reader:
    """A watch, and what is told to it."""

    def __init__(self, pattern: str = "*", *, limit: int = 100, **options: Any) -> None:
        self.clock = FakeClock()
        self.closed: list[DirectoryWatch] = []
        attributes = options.pop("attributes", {})
        self.watch = DirectoryWatch(
            pattern, attributes, clock=self.clock, on_close=self.closed.append, queue_limit=limit, **options
        )

    def offer(self, *events: DirectoryEvent) -> None:
        for event in events:
            self.watch.offer(event)

    def take(self) -> list[DirectoryEvent]:
        events = []
        while (event := self.watch.next(0)) is not None:
            events.append(event)
        return events


def test_events_come_in_order() -> None:
    reader = Reader()
    events: list[DirectoryEvent] = [
        PeerJoined(agent("a")),
        SYNCED,
        PeerUpdated(agent("a"), "kv", 2),
        LOST,
        StoreBack(),
        NameConflict("me", "/prod/me/", is_lost=False),
        PeerLeft(agent("a"), LeaveReason.EXPIRED),
    ]
    reader.offer(*events)
    assert reader.take() == events
    assert "0 agents" in repr(reader.watch)


def test_names_are_chosen_by_a_pattern_and_oneself_is_left_out() -> None:
    reader = Reader("decode-*", except_name="decode-0")
    reader.offer(*(PeerJoined(agent(name)) for name in ("decode-0", "decode-1", "prefill-1")))
    reader.offer(PeerLeft(agent("prefill-1"), LeaveReason.EXPIRED), PeerUpdated(agent("decode-0")))
    assert [event.name for event in reader.take() if isinstance(event, PeerJoined)] == ["decode-1"]


def test_one_whose_attributes_change_joins_or_has_left() -> None:
    reader = Reader(attributes={"role": "prefill"})
    fits, other = agent("a", attributes={"role": "prefill", "x": "y"}), agent("a", attributes={"role": "decode"})
    reader.offer(PeerJoined(other))
    assert reader.take() == []
    reader.offer(PeerUpdated(fits), PeerUpdated(fits, "kv", 2))
    assert reader.take() == [PeerJoined(fits), PeerUpdated(fits, "kv", 2)]
    reader.offer(PeerUpdated(other), PeerUpdated(other, "kv", 3), PeerLeft(other, LeaveReason.EXPIRED))
    assert reader.take() == [PeerLeft(other, LeaveReason.UNMATCHED)]


def test_attributes_are_strings() -> None:
    with pytest.raises(ConfigurationError, match="rank=3"):
        Reader(attributes={"rank": 3})


def test_nixls_own_agents_are_told_of_on_request() -> None:
    joined = PeerJoined(agent("n", is_nixl=True))
    for include in (True, False):
        reader = Reader(include_nixl=include)
        reader.offer(joined)
        assert reader.take() == [joined] * include


def test_a_name_that_changes_hands_between_nixl_and_us() -> None:
    reader = Reader()
    ours, nixls = agent("a"), agent("a", "5", is_nixl=True)
    reader.offer(PeerJoined(ours), PeerLeft(ours, LeaveReason.SUPERSEDED), PeerJoined(nixls))
    reader.offer(PeerLeft(nixls, LeaveReason.SUPERSEDED), PeerJoined(ours))
    assert [type(event) for event in reader.take()] == [PeerJoined, PeerLeft, PeerJoined]


class TestOneThatFellBehind:
    """Takes ``a`` to ``e``, and then nothing while the queue, of three events, overflows."""

    @pytest.fixture
    def reader(self) -> Reader:
        reader = Reader(limit=3)
        for name in "abcde":
            reader.offer(PeerJoined(agent(name)))
            assert reader.take()
        return reader

    def test_gets_the_difference(self, reader: Reader) -> None:
        suspect = agent("d", is_suspect=True)
        updated = agent("e", labels={"metadata": 2, "kv": 1})
        reader.offer(
            PeerLeft(agent("a"), LeaveReason.WITHDRAWN),
            PeerLeft(agent("b"), LeaveReason.SUPERSEDED),
            PeerJoined(agent("b", TWO)),
            PeerLeft(agent("c"), LeaveReason.EXPIRED),
            PeerJoined(agent("c")),
            PeerSuspect(suspect),
            PeerUpdated(updated, "metadata", 2),
            PeerUpdated(updated, "kv", 1),
            PeerJoined(agent("f")),
            PeerJoined(agent("g")),
            PeerLeft(agent("g"), LeaveReason.EXPIRED),
            PeerJoined(agent("h", is_suspect=True)),
        )
        assert reader.take() == [
            PeerLeft(agent("a"), LeaveReason.WITHDRAWN),
            PeerLeft(agent("b"), LeaveReason.SUPERSEDED),
            PeerJoined(agent("b", TWO)),
            PeerSuspect(suspect),
            PeerUpdated(updated, "metadata", 2),
            PeerUpdated(updated, "kv", 1),
            PeerJoined(agent("f")),
            PeerJoined(agent("h")),
            PeerSuspect(agent("h", is_suspect=True)),
        ]

    def test_gets_what_the_difference_does_not_show(self, reader: Reader) -> None:
        conflict = NameConflict("me", "/prod/.presence/me", is_lost=True)
        reader.offer(SYNCED, PeerLeft(agent("a"), LeaveReason.EXPIRED), LOST)
        reader.offer(conflict, *(PeerUpdated(agent("b", state="draining")) for _ in range(5)), conflict)
        assert reader.take() == [
            LOST,
            PeerLeft(agent("a"), LeaveReason.EXPIRED),
            PeerUpdated(agent("b", state="draining")),
            SYNCED,
            conflict,
        ]

    def test_hears_of_the_store_only_if_that_is_different_now(self, reader: Reader) -> None:
        reader.offer(LOST, StoreBack(), LOST, StoreBack())
        assert reader.take() == []
        reader.offer(LOST)
        assert reader.take() == [LOST]
        reader.offer(StoreBack(), LOST, LOST, StoreBack())
        assert reader.take() == [StoreBack()]

    def test_remembers_nobody_that_it_need_not_tell_of(self, reader: Reader) -> None:
        for number in range(99):
            joined = agent(f"z{number}")
            reader.offer(PeerJoined(joined), PeerLeft(joined, LeaveReason.EXPIRED))
        assert not reader.watch._departures
        assert reader.take() == []

    def test_may_fall_behind_again_at_once(self, reader: Reader) -> None:
        reader.offer(*(PeerLeft(agent(name), LeaveReason.EXPIRED) for name in "abcde"))
        assert reader.watch.next(0) == PeerLeft(agent("a"), LeaveReason.EXPIRED)
        reader.offer(*(PeerJoined(agent(name, TWO)) for name in "abcde"))
        names = set("bcde")
        for event in reader.take():
            assert isinstance(event, (PeerJoined, PeerLeft))
            (names.add if isinstance(event, PeerJoined) else names.remove)(event.name)
        assert names == set("abcde")


def test_waiting_ends_with_its_time() -> None:
    reader = Reader()
    assert reader.watch.next(0) is None
    reader.clock.advance(0)
    assert asyncio.run(reader.watch.next_async(0)) is None


def test_closing_wakes_readers_and_ends_iteration(threads: ThreadPoolExecutor) -> None:
    reader = Reader()
    reader.offer(PeerJoined(agent("a")))
    iterated = threads.submit(list, reader.watch)
    reader.clock.until_waiting()
    waiting = threads.submit(reader.watch.next)
    reader.clock.until_waiting(2)
    with reader.watch:
        pass
    reader.watch.close()
    assert iterated.result(20) == [PeerJoined(agent("a"))]
    with pytest.raises(ClosedError):
        waiting.result(20)
    reader.offer(SYNCED)
    with pytest.raises(ClosedError):
        reader.watch.next(0)
    assert reader.closed == [reader.watch]


def test_each_event_goes_to_one_reader(threads: ThreadPoolExecutor) -> None:
    reader = Reader()
    waiting = [threads.submit(reader.watch.next) for _ in range(4)]
    reader.clock.until_waiting(4)
    events = [PeerJoined(agent(name)) for name in "abcd"]
    reader.offer(*events)
    taken = [each.result(20) for each in waiting]
    assert all(event in taken for event in events)


def test_an_error_comes_after_the_events_before_it() -> None:
    reader = Reader()
    reader.offer(PeerJoined(agent("a")))
    reader.watch.fail(StoreAuthError("no right to watch"))
    assert reader.watch.next(0) == PeerJoined(agent("a"))
    for _ in range(2):
        with pytest.raises(StoreAuthError):
            reader.watch.next()
    with pytest.raises(StoreAuthError):
        list(reader.watch)


def test_it_is_iterated_in_an_event_loop() -> None:
    reader = Reader()

    async def read() -> list[DirectoryEvent]:
        events = []
        async with reader.watch:
            async for event in reader.watch:
                events.append(event)
                if event == SYNCED:
                    reader.watch.close()
        return events

    async def run() -> list[DirectoryEvent]:
        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        await asyncio.to_thread(reader.offer, PeerJoined(agent("a")))
        await asyncio.to_thread(reader.offer, SYNCED)
        return await asyncio.wait_for(reading, 20)

    assert asyncio.run(run()) == [PeerJoined(agent("a")), SYNCED]
    assert reader.watch._listeners == []


def test_one_that_stops_waiting_loses_nothing() -> None:
    reader = Reader()

    async def run() -> DirectoryEvent | None:
        waiting = asyncio.create_task(reader.watch.next_async())
        await asyncio.sleep(0)
        waiting.cancel()
        reader.offer(SYNCED)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return await reader.watch.next_async(0)

    assert asyncio.run(run()) == SYNCED


def test_in_a_forked_child_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader()
    parent = os.getpid()
    with monkeypatch.context() as patch, reader.watch._lock:  # as it may be held there for ever
        patch.setattr(os, "getpid", lambda: parent + 1)
        with pytest.raises(ForkedError):
            reader.watch.next()
        with pytest.raises(ForkedError):
            asyncio.run(reader.watch.next_async())
        reader.watch.close()
    assert reader.closed == []
