"""Processes that publish, fetch and watch through Redis, which crashes with all that they published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.fault.directory.fleet import Fleet

from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.testing.redis import RedisServer


@pytest.fixture
def fleet(server: RedisServer) -> Iterator[Fleet]:
    with Fleet(server.url) as fleet:
        yield fleet


def test_a_killed_process_leaves_and_its_name_is_taken_over(fleet: Fleet) -> None:
    first, second = fleet.start(("a", "b"), ("c",))
    fleet.check_seen()
    fleet.kill(second)
    fleet.check_seen()
    assert first.ask("expect_event", kind="left", name="c") == 1
    (third,) = fleet.start(("c",))
    fleet.open(third, "a", takeover=True)
    fleet.check_seen()
    eventually(lambda: first.ask("states")["a"]["is_superseded"])  # by its watch, after the others have seen it
    fleet.check_told()


def test_a_crash_that_loses_everything_has_all_publish_again(fleet: Fleet, server: RedisServer) -> None:
    first, second = fleet.start(("a", "b"), ("c",))
    fleet.check_seen()
    server.kill()
    assert first.ask("expect_event", kind="store lost") == 1
    server.start()
    fleet.check_seen()
    assert first.ask("states")["a"]["sessions"] == 2
    for member in (first, second):
        assert not [event for event in member.ask("events") if event[0] == "left"]
    fleet.check()
