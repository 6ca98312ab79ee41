from __future__ import annotations

import subprocess
import sys
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from trunkline.clock import Deadline
from trunkline.directory import Directory
from trunkline.directory.session import Content, Session
from trunkline.errors import AgentNameInUseError, StoreAuthError, StoreUnavailableError
from trunkline.metadata.key import MetadataKey
from trunkline.metadata.presence import Presence, decode_presence
from trunkline.process import local_process
from trunkline.store.contract import Changed, Interrupted, Put, Store, Transaction
from trunkline.testing.faulty_store import Fault, FaultyStore

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from trunkline.store.contract import Watch
    from trunkline.testing.clock import FakeClock

ONE, TWO, THREE = "1" * 32, "2" * 32, "3" * 32
RECORD = "/prod/.presence/a"


@pytest.fixture
def other_directory(other_store: Store, clock: FakeClock) -> Directory:
    return Directory(other_store, namespace="/prod", clock=clock)


def put(store: Store, key: str, value: bytes = b"", lease: int = 0) -> None:
    store.transact(Transaction((), (Put(key, value, lease),)), timeout=1)


def holder(store: Store) -> str | None:
    entry, _ = store.get(RECORD, timeout=1)
    return None if entry is None else decode_presence(entry.value).incarnation


def test_who_waits_gets_the_name_when_it_is_given_up(
    store: FaultyStore,
    directory: Directory,
    other_directory: Directory,
    clock: FakeClock,
    threads: ThreadPoolExecutor,
) -> None:
    first = other_directory.open_publisher("a", incarnation=ONE)
    waiting = threads.submit(directory.open_publisher, "a", incarnation=TWO, timeout=None)
    clock.until_waiting(3)  # the waiting watch, the store's thread and the observer's
    first.publish(b"still here")
    first.publish(b"and still")
    assert not waiting.done()
    first.close()
    with waiting.result(30) as second:
        assert holder(store) == TWO == second.incarnation
    assert len(store.transactions) == 3  # no asking again and again; the third says goodbye


def test_who_waits_gets_the_name_when_its_holder_dies(
    store: FaultyStore, directory: Directory, other_store: Store, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    Directory(other_store, namespace="/prod", clock=clock).open_publisher("a", incarnation=ONE)
    waiting = threads.submit(directory.open_publisher, "a", incarnation=TWO, timeout=None)
    clock.until_waiting(3)
    other_store.close()
    clock.advance(30)
    waiting.result(30)
    assert holder(store) == TWO


def test_a_live_holder_keeps_the_name_and_the_error_says_who_it_is(
    store: FaultyStore,
    directory: Directory,
    other_directory: Directory,
    clock: FakeClock,
    threads: ThreadPoolExecutor,
) -> None:
    other_directory.open_publisher("a", incarnation=ONE)
    waiting = threads.submit(directory.open_publisher, "a", incarnation=TWO, timeout=None)
    clock.until_waiting(3)
    clock.advance(31.9)
    with pytest.raises(FutureTimeoutError):
        waiting.result(0.1)
    clock.advance(0.2)
    with pytest.raises(AgentNameInUseError, match=r"refreshing its lease.*takeover=True") as caught:
        waiting.result(30)
    here = local_process()
    assert f"pid {here.pid} on host {here.host}" in str(caught.value)
    assert caught.value.context["incarnation"] == ONE
    assert holder(store) == ONE
    assert store.time_to_live(store.leases[0].id, timeout=1) is None  # what was granted for it is given back


def test_a_short_timeout_ends_the_wait_and_says_when_to_come_back(
    directory: Directory, other_directory: Directory
) -> None:
    other_directory.open_publisher("a", incarnation=ONE, ttl=50)
    with pytest.raises(AgentNameInUseError, match="lease ends in 50 s"):
        directory.open_publisher("a", incarnation=TWO, timeout=0)


def test_takeover_replaces_a_live_holder_and_its_keys(
    store: FaultyStore, directory: Directory, other_directory: Directory
) -> None:
    other_directory.open_publisher("a", incarnation=ONE).publish(b"1", catalog=b"c")
    _, start = store.get(RECORD, timeout=1)
    directory.open_publisher("a", incarnation=TWO, takeover=True, timeout=0)
    with store.watch("/prod/", prefix=True, after=start) as watch:
        first, second = watch.next(1), watch.next(1)
    assert isinstance(first, Changed)
    assert set(first.deleted) == {"/prod/a/", "/prod/a/metadata", "/prod/.catalog/a", RECORD}
    assert isinstance(second, Changed)
    assert [entry.key for entry in second.put] == ["/prod/a/", RECORD]


def test_an_older_session_of_the_same_incarnation_is_replaced(
    store: FaultyStore, directory: Directory, other_store: Store, clock: FakeClock
) -> None:
    older = Session(other_store, MetadataKey("/prod", "a"), other_store.grant(30, timeout=1), clock)
    presence = Presence(incarnation=ONE, process=local_process())
    older.claim(presence, Content(), Deadline(1, clock), takeover=False, is_patient=False)
    directory.open_publisher("a", incarnation=ONE, timeout=0)
    entry, _ = store.get(RECORD, timeout=1)
    assert entry is not None
    assert entry.lease == store.leases[0].id


def test_a_holder_whose_process_ended_here_is_replaced_at_once(
    store: FaultyStore, directory: Directory, other_store: Store, clock: FakeClock
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    process = msgspec.structs.replace(local_process(), pid=child.pid, started=1)
    presence = Presence(incarnation=ONE, process=process)
    session = Session(other_store, MetadataKey("/prod", "a"), other_store.grant(30, timeout=1), clock)
    session.claim(presence, Content(), Deadline(1, clock), takeover=False, is_patient=False)
    directory.open_publisher("a", incarnation=TWO, timeout=0)
    assert holder(store) == TWO


def test_a_dead_process_in_a_record_for_newer_readers_proves_nothing(
    store: FaultyStore, directory: Directory, other_store: Store
) -> None:
    lease = other_store.grant(30, timeout=1)
    put(other_store, RECORD, b'{"format":9,"min_reader":9}', lease.id)
    with pytest.raises(AgentNameInUseError, match="does not say where it runs"):
        directory.open_publisher("a", incarnation=TWO, timeout=0)


def test_an_unreadable_record_on_a_live_lease_is_a_holder_that_can_be_taken_over(
    store: FaultyStore, directory: Directory, other_store: Store
) -> None:
    lease = other_store.grant(30, timeout=1)
    put(other_store, RECORD, b"\xff", lease.id)
    with pytest.raises(AgentNameInUseError, match="does not say where it runs"):
        directory.open_publisher("a", incarnation=TWO, timeout=0)
    directory.open_publisher("a", incarnation=TWO, timeout=0, takeover=True)
    assert holder(store) == TWO


@pytest.mark.parametrize("labels", [1, 250])
def test_leavings_of_a_nixl_agent_go_in_a_transaction_before_the_claim(
    store: FaultyStore, directory: Directory, labels: int
) -> None:
    put(store, "/prod/a/")
    for number in range(labels):
        put(store, f"/prod/a/label-{number}")
    others = ("/prod/a/b/", "/prod/a/b/metadata", "/prod/ab/", "/prod/ab/metadata")
    for other in others:
        put(store, other)
    _, start = store.get(RECORD, timeout=1)
    directory.open_publisher("a", incarnation=ONE)
    assert {entry.key for entry in store.list("/prod/", timeout=1).entries} == {"/prod/a/", RECORD, *others}
    with store.watch("/prod/a/", after=start) as watch:
        first, second = watch.next(1), watch.next(1)
    assert isinstance(first, Changed)
    assert isinstance(second, Changed)
    assert first.deleted == ("/prod/a/",)
    assert second.put[0].lease == store.leases[0].id


def test_a_record_without_a_lease_is_leavings_too(store: FaultyStore, directory: Directory) -> None:
    put(store, RECORD, b"{}")
    put(store, "/prod/a/metadata")
    directory.open_publisher("a", incarnation=ONE)
    assert {entry.key for entry in store.list("/prod/", timeout=1).entries} == {"/prod/a/", RECORD}


def test_a_claim_whose_answer_was_lost_is_ones_own(store: FaultyStore, directory: Directory) -> None:
    store.faults.append(Fault.REPEATED)
    session = directory.open_publisher("a", incarnation=ONE, timeout=0)
    session.publish(b"1")
    assert holder(store) == ONE


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.LOST_REQUEST])
def test_a_claim_that_fails_leaves_nothing(store: FaultyStore, directory: Directory, fault: Fault) -> None:
    store.faults.append(fault)
    with pytest.raises(StoreUnavailableError):
        directory.open_publisher("a", incarnation=ONE)
    assert store.list("/prod/", timeout=1).entries == ()
    assert store.time_to_live(store.leases[0].id, timeout=1) is None


def test_a_store_that_is_away_while_waiting_is_waited_for(
    store: FaultyStore,
    directory: Directory,
    other_directory: Directory,
    clock: FakeClock,
    threads: ThreadPoolExecutor,
) -> None:
    first = other_directory.open_publisher("a", incarnation=ONE)
    store.outages = ["no endpoint answers"]
    waiting = threads.submit(directory.open_publisher, "a", incarnation=TWO, timeout=None)
    clock.until_waiting(3)
    assert not waiting.done()
    first.close()
    waiting.result(30)


def test_a_store_that_is_away_all_the_time_is_the_error(
    store: FaultyStore,
    directory: Directory,
    other_directory: Directory,
    clock: FakeClock,
    threads: ThreadPoolExecutor,
) -> None:
    """Whether the holder lives is not known then."""
    with other_directory.open_publisher("a", incarnation=ONE):
        store.outages = ["no endpoint answers"]
        waiting = threads.submit(directory.open_publisher, "a", incarnation=TWO, timeout=None)
        clock.until_waiting(3)
        clock.advance(60)
        with pytest.raises(StoreUnavailableError, match=r"'a'.*no endpoint answers"):
            waiting.result(30)


def test_after_an_outage_the_holder_gets_its_time_again(
    store: FaultyStore,
    directory: Directory,
    other_directory: Directory,
    clock: FakeClock,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An etcd that was restarted gives every lease its full TTL: the holder may be dead all the same."""
    other_directory.open_publisher("a", incarnation=ONE, ttl=10)
    watch, outages = store.watch, [Interrupted("etcd restarts"), Changed((), (), 0)]

    def watch_with_outage(key: str, *, after: int) -> Watch:
        watching = watch(key, after=after)
        follow = watching.next

        def next_event(timeout: float | None) -> Any:
            return outages.pop(0) if outages else follow(timeout)

        monkeypatch.setattr(watching, "next", next_event)
        return watching

    monkeypatch.setattr(store, "watch", watch_with_outage)
    waiting = threads.submit(directory.open_publisher, "a", incarnation=TWO, timeout=None)
    clock.until_waiting(3)
    assert len(store.transactions) == 2  # it looked again
    clock.advance(12)
    with pytest.raises(AgentNameInUseError):
        waiting.result(30)


def test_a_lease_that_can_t_be_given_back_does_not_hide_why_the_claim_failed(
    store: FaultyStore, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = store.grant

    def grant_once(*arguments: Any, **settings: Any) -> Any:
        lease = grant(*arguments, **settings)
        monkeypatch.setattr(type(lease), "close", denied)
        return lease

    def denied(*_: object) -> None:
        raise StoreAuthError("no right to revoke")

    monkeypatch.setattr(store, "grant", grant_once)
    store.faults.append(Fault.LOST_REQUEST)
    with pytest.raises(StoreUnavailableError):
        directory.open_publisher("a", incarnation=ONE)


def test_a_history_that_is_gone_shows_the_holder_or_that_there_is_none(
    store: FaultyStore,
    directory: Directory,
    other_directory: Directory,
    clock: FakeClock,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A watch that starts with a snapshot, as after a compaction."""
    first = other_directory.open_publisher("a", incarnation=ONE)
    watch = store.watch

    def watch_afresh(key: str, *, after: int) -> Watch:
        return watch(key)

    monkeypatch.setattr(store, "watch", watch_afresh)
    waiting = threads.submit(directory.open_publisher, "a", incarnation=TWO, timeout=None)
    clock.until_waiting(3)
    assert not waiting.done()
    first.close()
    waiting.result(30)


def test_one_of_many_gets_the_name(
    store: FaultyStore, directory: Directory, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    def claim(number: int) -> bool:
        try:
            directory.open_publisher("a", incarnation=f"{number:032x}", timeout=0)
        except AgentNameInUseError:
            return False
        return True

    assert sum(threads.map(claim, range(16))) == 1
    alive = [lease for lease in store.leases if store.time_to_live(lease.id, timeout=1) is not None]
    assert len(alive) == 1
