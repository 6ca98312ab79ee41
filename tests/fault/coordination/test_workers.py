"""Workers are killed, stopped and interrupted, and etcd is taken away under them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.fault.coordination.crew import TTL, ask

from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from tests.fault.coordination.crew import Crew


def test_a_killed_worker_is_named_to_all_others_within_its_ttl(crew: Crew) -> None:
    first, second, third = crew.start(3)
    first.send("barrier")
    second.send("recv", rank=0)
    crew.until_keys("/seat/", 3)
    killed_at = time.monotonic()
    third.kill()
    for member in (first, second):
        found = member.outcome()
        assert found["error"] == "WorkerLostError"
        assert found["context"]["ranks"] == [2]
        assert f"(pid {third.process.pid} on " in found["text"]
    assert time.monotonic() - killed_at < TTL
    assert [first.leave(), second.leave()] == [0, 0]
    assert crew.keys() == []


def test_a_stopped_worker_is_lost_to_the_others_and_knows_it_when_it_runs_on(crew: Crew) -> None:
    first, second = crew.start(2)
    second.stop()
    found = ask([first], "barrier")[0]
    assert found["error"] == "WorkerLostError"
    assert found["context"]["ranks"] == [1]
    second.send("barrier")
    second.resume()
    found = second.outcome()
    assert found["error"] in {"SeatLostError", "GroupFailedError"}  # which of the two its watch brings first
    assert [first.leave(), second.leave()] == [0, 0]
    assert crew.keys() == []


def test_a_worker_stopped_in_a_collective_does_not_end_it_once_it_counts_as_dead(crew: Crew) -> None:
    hub, second = crew.start(2)
    hub.send("reduce", value=1)
    crew.until_keys("/seat/", 2)
    hub.stop()
    found = ask([second], "reduce", value=2)[0]  # the hub has all that it waits for, but does not run
    assert found["error"] == "WorkerLostError"
    hub.resume()
    found = hub.outcome()
    assert found["error"] in {"SeatLostError", "GroupFailedError"}
    assert [hub.leave(), second.leave()] == [0, 0]
    assert crew.keys() == []


def test_a_lease_that_runs_out_after_a_restart_of_etcd_is_lost(crew: Crew) -> None:
    first, second = crew.start(2)
    first.send("barrier")
    second.stop()
    crew.server.kill()
    crew.server.start()
    found = first.outcome()
    assert found["error"] == "WorkerLostError"
    assert found["context"]["ranks"] == [1]
    second.resume()
    assert ask([second], "barrier")[0]["error"] in {"SeatLostError", "GroupFailedError"}
    assert [first.leave(), second.leave()] == [0, 0]
    assert crew.keys() == []


def test_a_barrier_goes_on_over_a_restart_of_etcd(crew: Crew) -> None:
    first, second, third = crew.start(3)
    first.send("barrier")
    crew.until_keys("/seat/", 3)
    second.send("allgather", value=0)  # another call on purpose: the release must still come after the restart
    crew.until_keys("/arrival/", 1)
    crew.server.kill()
    third.send("barrier")
    crew.server.start()
    found = [member.outcome() for member in (first, second, third)]
    assert [each["error"] for each in found] == ["CollectiveMismatchError"] * 3
    found = ask([first, second, third], "allgather", value="after")
    assert [each["value"] for each in found] == [["after"] * 3] * 3
    assert [member.leave() for member in (first, second, third)] == [0, 0, 0]
    assert crew.keys() == []


def test_a_deadline_holds_while_etcd_is_away(crew: Crew) -> None:
    first, second, third = crew.start(3, ttl=30)
    first.send("barrier", timeout=3)
    second.send("recv", rank=0, timeout=3)
    crew.until_keys("/seat/", 3)
    crew.server.kill()
    third.send("barrier", timeout=3)
    try:
        found = third.outcome()  # it has something to write
        assert found["error"] == "StoreUnavailableError"
        assert "is etcd running and reachable there?" in found["text"]
        assert 3 <= found["elapsed"] < 10
        for member in (first, second):
            found = member.outcome()
            assert found["error"] == "DeadlineError"
            assert "The store can't be reached" in found["text"]
            assert 3 <= found["elapsed"] < 10
    finally:
        crew.server.start()
    gathered = ask([first, second, third], "allgather", value=1)
    assert [each.get("value") for each in gathered] == [[1, 1, 1]] * 3


def test_the_next_run_of_a_crashed_one_begins_at_once_on_the_same_machine(crew: Crew) -> None:
    for member in crew.start(2, ttl=60):
        member.kill()
    assert crew.keys()
    began = time.monotonic()
    members = crew.start(2, ttl=60)
    assert time.monotonic() - began < 30  # not the TTL
    assert [each["value"] for each in ask(members, "allgather", value=1)] == [[1, 1]] * 2


def test_a_crash_while_workers_are_still_missing_does_not_poison_the_next_run(crew: Crew) -> None:
    (lonely,) = crew.launch(3, 1, ttl=60)
    crew.until_keys("/seat/", 1)
    lonely.kill()
    members = crew.launch(2, ttl=60)  # also another size
    assert [member.outcome().get("value") for member in members] == [0, 1]


def test_the_founder_dies_before_all_are_there(crew: Crew) -> None:
    """Who has a seat begins again with those who come."""
    (founder,) = crew.launch(3, 0, ttl=60)
    crew.until_keys("/seat/0", 1)
    (second,) = crew.launch(3, 1, ttl=60)
    crew.until_keys("/seat/1", 1)
    founder.kill()
    first, third = crew.launch(3, 0, 2, ttl=60)
    members = [first, second, third]
    assert [member.outcome().get("value") for member in members] == [0, 1, 2]
    assert [each["value"] for each in ask(members, "allgather", value=1)] == [[1, 1, 1]] * 3


def test_too_many_workers(crew: Crew) -> None:
    members = crew.start(2)
    (late,) = crew.launch(2, -1, timeout=3)
    found = late.outcome()
    assert found["error"] == "GroupFullError"
    assert f"rank 0: pid {members[0].process.pid} on " in found["text"]
    assert [each["value"] for each in ask(members, "allgather", value=1)] == [[1, 1]] * 2


def test_a_newcomer_waits_for_the_run_before(crew: Crew) -> None:
    before = crew.start(2)
    waiting = crew.launch(2)
    ask(before, "barrier")
    assert all(member.is_silent() for member in waiting)
    assert [member.leave() for member in before] == [0, 0]
    assert [member.outcome().get("value") for member in waiting] == [0, 1]


def test_a_missing_worker(crew: Crew) -> None:
    (lonely,) = crew.launch(2, 1, timeout=3)
    found = lonely.outcome()
    assert found["error"] == "DeadlineError"
    assert found["context"]["ranks"] == [0]
    assert 3 <= found["elapsed"] < 20
    assert lonely.leave() == 0
    assert crew.keys() == []


def test_ctrl_c_on_one_worker_ends_all_and_leaves_no_key(crew: Crew) -> None:
    first, second, third = crew.start(3)
    first.send("barrier")
    third.send("barrier")
    second.send("recv", rank=0)
    crew.until_keys("/arrival/", 1)
    second.interrupt()
    for member in (first, third):
        found = member.outcome()
        assert found["error"] == "GroupFailedError"
        assert found["context"]["rank"] == 1
        assert found["context"]["reason"] == "KeyboardInterrupt"
    assert second.process.wait() != 0
    assert [first.leave(), third.leave()] == [0, 0]
    eventually(lambda: crew.keys() == [])


def test_ctrl_c_while_workers_are_missing_leaves_no_key(crew: Crew) -> None:
    (lonely,) = crew.launch(2, 0)
    crew.until_keys("/seat/", 1)
    lonely.interrupt()
    assert lonely.outcome()["error"] == "KeyboardInterrupt"
    assert lonely.process.wait() != 0
    assert crew.keys() == []


def test_a_worker_that_does_not_come_is_named_with_its_process(crew: Crew) -> None:
    first, second, third = crew.start(3)
    first.send("barrier", timeout=1)
    third.send("barrier", timeout=1)
    for member in (first, third):
        found = member.outcome()
        assert found["error"] == "DeadlineError"
        assert found["context"]["ranks"] == [1]
        assert f"still waiting for rank 1 (pid {second.process.pid} on " in found["text"]
    assert [each["value"] for each in ask([first, second, third], "barrier")] == [None] * 3
