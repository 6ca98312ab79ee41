"""Agents are killed, stopped and held up, and somebody meddles with their keys."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.fault.directory.fleet import TTL

from trunkline.directory import Directory
from trunkline.store import open_store
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from tests.fault.directory.fleet import Fleet

CROWD = tuple(f"crowd-{number}" for number in range(7))
"""So many that three who vanish together are no majority, which would be taken for the store's fault."""


def test_one_is_killed_one_stopped_and_one_held_up(fleet: Fleet) -> None:
    """The dead one leaves; those that stood still for two TTLs are back by themselves, as who they were, with all they
    had published.
    """
    crowd, killed, stopped, held = fleet.start(CROWD, ("killed",), ("stopped",), ("held",))
    held.send("hold_interpreter", seconds=2 * TTL)
    stopped.stop()
    fleet.kill(killed)
    assert crowd.ask("expect_event", kind="left", name="killed")
    time.sleep(TTL / 2)  # with the TTL, its delay and the settling above more than 2 × TTL: time is the fault
    stopped.resume()
    held.answer()
    fleet.check_seen()
    for member in (stopped, held):
        ((_, state),) = member.ask("states").items()
        assert state["sessions"] > 1
        assert state["lost"] is None
    assert crowd.ask("states")["crowd-0"]["sessions"] == 1
    assert ["left", "killed", "expired"] in [[event[0], event[1], event[3]] for event in crowd.ask("events")]
    fleet.check()


def test_a_killed_one_that_is_started_again_is_another(fleet: Fleet) -> None:
    """The new incarnation has the name at once, and everybody hears that the old one is superseded."""
    watcher, first = fleet.start(("watcher",), ("worker",))
    fleet.kill(first)
    fleet.start(("worker",))
    fleet.check_seen()
    told = [event[3] for event in watcher.ask("events") if event[:2] == ["left", "worker"]]
    assert told in (["superseded"], ["expired"])  # expired if the new process took more than its TTL to start
    fleet.check()


def test_somebody_meddles_with_their_keys(fleet: Fleet) -> None:
    """A revoked lease, a deleted record, a deleted marker, all keys deleted: everything is put again, nobody leaves."""
    first, second = fleet.start(("revoked", "bystander"), ("unlisted", "unmarked"))
    fleet.revoke("revoked")
    fleet.delete_presence("unlisted")
    fleet.delete_marker("unmarked")
    eventually(lambda: fleet.has_marker("unmarked") and fleet.lease_of("revoked") and fleet.lease_of("unlisted"))
    fleet.check_seen()
    assert first.ask("states")["revoked"]["sessions"] == 2
    assert [each["sessions"] for each in second.ask("states").values()] == [1, 1]  # repaired on the lease they had
    fleet.delete_everything()
    eventually(lambda: all(map(fleet.has_marker, fleet.model.listed)) and all(map(fleet.lease_of, fleet.model.listed)))
    fleet.check_seen()
    for member in (first, second):
        assert not [event for event in member.ask("events") if event[0] == "left"]
    fleet.check()


def test_two_of_one_name(fleet: Fleet) -> None:
    """The second does not get the name, or takes it over: then the first is told, for good."""
    first, second = fleet.start(("name", "other"), ("second",))
    refused = second.try_to("open", names=["name"], incarnations=["2" * 32], timeout=0.5)
    assert refused["error"] == "AgentNameInUseError"
    assert first.ask("states")["name"]["sessions"] == 1
    fleet.open(second, "name", takeover=True)
    assert first.ask("expect_event", kind="lost", name="name")
    assert first.ask("states")["name"]["is_superseded"]
    assert fleet.publish(first, "other").get("error") is None
    refused = first.try_to("publish", value="late", names=["name"])
    assert refused["error"] == "SupersededError"
    fleet.check()


def test_two_of_one_name_in_one_process(fleet: Fleet) -> None:
    """What the first one's end stops does not stop the second from keeping its keys."""
    with open_store(fleet.endpoint) as store:
        directory = Directory(store, namespace=fleet.namespace)
        with directory.open_publisher("name", incarnation="1" * 32, ttl=TTL) as first:
            first.publish(b"1")
            with directory.open_publisher("name", incarnation="2" * 32, ttl=TTL, takeover=True) as second:
                second.publish(b"2")
                eventually(lambda: first.is_superseded)
                first.close()
                fleet.delete_marker("name")
                eventually(lambda: fleet.has_marker("name"), 20)
                fleet.delete_presence("name")
                eventually(lambda: fleet.lease_of("name"))
                assert second.sessions == 1
