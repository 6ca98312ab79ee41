from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from trunkline.errors import ClosedError, StoreAuthError
from trunkline.etcd.messages import WATCH
from trunkline.etcd.value import Change, Interruption, KeyValue, Listing
from trunkline.etcd.watch import Watch
from trunkline.testing.clock import FakeClock
from trunkline.testing.waiting import eventually

CLUSTER = 5


class Bench:
    """A watch whose stream is the test."""

    def __init__(self, after: int | None = None, queue_limit: int = 1 << 20) -> None:
        self.clock = FakeClock()
        self.demands = 0
        self.closed: list[Watch] = []
        self.watch = Watch(
            b"/a/",
            b"/a0",
            after,
            clock=self.clock,
            lock=threading.Lock(),
            check_process=lambda: None,
            on_demand=self._count_demand,
            on_close=self.closed.append,
            queue_limit=queue_limit,
        )

    def _count_demand(self, _: Watch) -> None:
        self.demands += 1

    @property
    def start_revision(self) -> int:
        return int(self.watch.create_request(1).create_request.start_revision)

    def create(self, revision: int = 10, cluster: int = CLUSTER) -> None:
        self.watch.take_response(response(revision=revision, cluster=cluster, created=True))

    def take_listing(self, revision: int, *keys: bytes, cluster: int = CLUSTER) -> Listing:
        listing = Listing(tuple(KeyValue(key, b"", 1, 1, 0) for key in keys), revision, cluster)
        self.watch.take_listing(listing)
        return listing

    def events(self) -> list[Any]:
        events = []
        while (event := self.watch.next(0)) is not None:
            events.append(event)
        return events


def response(*events: Any, revision: int = 10, cluster: int = CLUSTER, **fields: Any) -> Any:
    header = {"revision": revision, "cluster_id": cluster}
    return WATCH.response(header=header, watch_id=1, events=events, **fields)


def put(revision: int, key: bytes = b"/a/x", value: bytes = b"v") -> Any:
    return {"type": 0, "kv": {"key": key, "value": value, "mod_revision": revision, "create_revision": revision}}


def delete(revision: int, key: bytes = b"/a/x") -> Any:
    return {"type": 1, "kv": {"key": key, "mod_revision": revision}}


def test_it_lists_first_then_follows_from_there() -> None:
    bench = Bench()
    assert bench.watch.must_list
    listing = bench.take_listing(7)
    assert bench.start_revision == 8
    assert bench.events() == [listing]  # even when empty


def test_after_a_revision_it_lists_nothing() -> None:
    bench = Bench(after=41)
    assert not bench.watch.must_list
    assert bench.start_revision == 42
    assert bench.events() == []


def test_the_request_asks_for_fragments_and_progress() -> None:
    request = Bench(after=1).watch.create_request(9).create_request
    assert (request.key, request.range_end, request.watch_id) == (b"/a/", b"/a0", 9)
    assert request.fragment
    assert request.progress_notify


def test_created_does_not_move_the_revision() -> None:
    bench = Bench(after=7)
    bench.create(revision=100)
    assert bench.start_revision == 8


def test_a_batch_becomes_one_change_per_revision() -> None:
    bench = Bench(after=10)
    bench.watch.take_response(response(delete(11), put(11, b"/a/y"), put(12), revision=20))
    first, second = bench.events()
    assert first == Change((KeyValue(b"/a/y", b"v", 11, 11, 0),), (b"/a/x",), 11)
    assert second == Change((KeyValue(b"/a/x", b"v", 12, 12, 0),), (), 12)
    assert bench.start_revision == 13  # not the header's 20: more may be on the way


def test_what_is_known_already_is_dropped() -> None:
    bench = Bench(after=10)
    bench.watch.take_response(response(put(10), put(11)))
    assert [event.revision for event in bench.events()] == [11]


def test_fragments_count_only_when_complete() -> None:
    bench = Bench(after=10)
    bench.watch.take_response(response(put(11), put(12, b"/a/x"), fragment=True))
    assert bench.events() == []
    assert bench.start_revision == 11  # asking for a new watcher forgets them
    bench.watch.take_response(response(put(11), fragment=True))
    bench.watch.take_response(response(put(12, b"/a/x"), fragment=True))
    bench.watch.take_response(response(put(12, b"/a/y")))
    events = bench.events()
    assert [event.revision for event in events] == [11, 12]
    assert [entry.key for entry in events[1].put] == [b"/a/x", b"/a/y"]


def test_progress_moves_the_revision_but_not_between_fragments() -> None:
    bench = Bench(after=10)
    bench.watch.take_response(response(revision=50))
    assert bench.start_revision == 51
    bench.watch.take_response(response(put(51), fragment=True, revision=51))
    bench.watch.take_response(response(revision=60))
    bench.watch.take_response(response(put(52), revision=60))
    assert [event.revision for event in bench.events()] == [51, 52]
    assert bench.start_revision == 53


def test_lost_history_is_listed_again() -> None:
    bench = Bench(after=10)
    bench.watch.lose_history()
    assert bench.watch.must_list
    listing = bench.take_listing(30, b"/a/new")
    assert bench.events() == [listing]
    assert bench.start_revision == 31


def test_a_listing_replaces_what_was_not_taken() -> None:
    """So that a reader who is away while history is lost again and again costs one listing, not many."""
    bench = Bench(after=10)
    for revision in (30, 40, 50):
        bench.watch.lose_history()
        listing = bench.take_listing(revision, b"/a/new")
    assert bench.events() == [listing]


def test_another_cluster_is_another_history() -> None:
    bench = Bench(after=10)
    bench.create(cluster=CLUSTER)
    bench.create(cluster=CLUSTER)
    assert bench.start_revision == 11
    bench.create(cluster=CLUSTER + 1)
    assert bench.watch.must_list
    listing = bench.take_listing(10, cluster=CLUSTER + 1)
    assert bench.events() == [listing]


def test_a_member_that_lags_behind_is_no_lost_history() -> None:
    bench = Bench(after=10)
    bench.create(revision=9)
    assert bench.watch.must_list
    bench.take_listing(10)  # the cluster is where we are
    assert bench.events() == []
    assert bench.start_revision == 11


def test_a_revision_that_went_backwards_is() -> None:
    bench = Bench(after=10)
    bench.create(revision=9)
    listing = bench.take_listing(9)
    assert bench.events() == [listing]
    assert bench.start_revision == 10


def test_an_outage_is_told_once_and_its_end_too() -> None:
    bench = Bench(after=10)
    bench.watch.interrupt("gone")
    bench.watch.interrupt("still gone")
    bench.create()
    bench.create()
    assert bench.events() == [Interruption("gone"), Change((), (), 10)]
    bench.watch.interrupt("again")
    bench.watch.lose_history()
    listing = bench.take_listing(20)
    bench.create(revision=20)
    assert bench.events() == [Interruption("again"), listing]


def test_an_absent_reader_costs_a_bounded_queue() -> None:
    bench = Bench(after=10, queue_limit=10_000)
    for revision in range(11, 21):  # each takes 960 bytes
        bench.watch.take_response(response(put(revision, value=b"v" * 700)))
    assert bench.start_revision == 21
    bench.watch.take_response(response(put(21, value=b"v" * 700)))
    assert bench.watch.is_stalled
    assert bench.watch.must_list
    assert bench.demands == 0
    assert bench.watch.next(0) is None  # the reader is back
    assert bench.demands == 1
    listing = bench.take_listing(30)
    assert bench.events() == [listing]


def test_fragments_count_for_the_bound() -> None:
    bench = Bench(after=10, queue_limit=1000)
    bench.watch.take_response(response(put(11, value=b"v" * 2000), fragment=True))
    assert bench.watch.is_stalled


def test_a_reader_that_waits_is_not_absent() -> None:
    bench = Bench(after=10, queue_limit=1000)
    with ThreadPoolExecutor(1) as thread:
        taken = thread.submit(bench.watch.next, None)
        bench.clock.until_waiting()
        bench.watch.take_response(response(put(11, value=b"v" * 2000), fragment=True))
        eventually(lambda: bench.demands == 1)
        assert not bench.watch.is_stalled
        listing = bench.take_listing(30)
        assert taken.result(30) == listing


def test_taking_events_makes_room() -> None:
    bench = Bench(after=10, queue_limit=2000)
    for revision in range(11, 60):
        bench.watch.take_response(response(put(revision, value=b"v" * 700), delete(revision, b"/a/y")))
        assert bench.watch.next(0) is not None
    assert not bench.watch.is_stalled


def test_events_before_an_error_are_delivered() -> None:
    bench = Bench(after=10)
    bench.watch.take_response(response(put(11)))
    bench.watch.fail(StoreAuthError("denied"))
    assert bench.watch.next(0) is not None
    for _ in range(2):
        with pytest.raises(StoreAuthError, match="denied"):
            bench.watch.next(None)


def test_next_waits_for_its_time_out() -> None:
    bench = Bench(after=10)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(bench.watch.next(5)))
    thread.start()
    bench.clock.until_waiting()
    bench.clock.advance(4.9)
    bench.clock.until_waiting()
    assert not results
    bench.clock.advance(0.2)
    thread.join(10)
    assert results == [None]


def test_an_event_wakes_every_reader_that_can_have_one() -> None:
    bench = Bench(after=10)
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(bench.watch.next(None))) for _ in range(2)]
    for thread in threads:
        thread.start()
    bench.clock.until_waiting(2)
    bench.watch.take_response(response(put(11), put(12)))
    for thread in threads:
        thread.join(10)
    assert sorted(event.revision for event in results) == [11, 12]


def test_close_wakes_a_reader_and_ends_iteration() -> None:
    bench = Bench(after=10)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.extend([*bench.watch, "end"]))
    thread.start()
    bench.clock.until_waiting()
    bench.watch.close()
    bench.watch.close()
    thread.join(10)
    assert results == ["end"]
    assert bench.closed == [bench.watch]
    with pytest.raises(ClosedError):
        bench.watch.next(0)


def test_a_right_that_is_taken_away_is_told_once_also_amid_an_outage_and_then_all_is_listed() -> None:
    bench = Bench(after=10)
    bench.create()
    bench.watch.interrupt("gone")
    for reason in ("denied", "still denied"):
        bench.watch.deny(reason)
    assert bench.watch.must_list
    bench.watch.interrupt("gone again")
    listing = bench.take_listing(20)
    bench.create(revision=20)
    assert bench.events() == [Interruption("denied"), listing]
    bench.watch.deny("denied anew")
    assert bench.events() == [Interruption("denied anew")]
