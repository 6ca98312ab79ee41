from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.directory import Directory
from trunkline.directory.event import NameConflict
from trunkline.errors import (
    AgentNotFoundError,
    ConfigurationError,
    MetadataDecodeError,
    MetadataError,
    StoreUnavailableError,
)
from trunkline.metadata.key import NIXL_NAMESPACE
from trunkline.store.contract import Delete, Put, Store, Transaction
from trunkline.testing.faulty_store import Fault, FaultyStore
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    import threading
    from concurrent.futures import ThreadPoolExecutor

    from trunkline.testing.clock import FakeClock

ONE, TWO = "1" * 32, "2" * 32


@pytest.fixture
def publisher(other_store: Store, clock: FakeClock) -> Directory:
    return Directory(other_store, namespace="/prod", clock=clock)


def put(store: Store, key: str, value: bytes = b"") -> int:
    return store.transact(Transaction((), (Put(key, value),)), timeout=1).revision


def test_what_is_there_is_fetched_in_one_transaction(
    store: FaultyStore, directory: Directory, publisher: Directory
) -> None:
    session = publisher.open_publisher("a", incarnation=ONE, attributes={"role": "prefill"})
    revision = session.publish(b"metadata", catalog=b"catalog")
    found = directory.fetch("a", timeout=0)
    assert len(store.transactions) == 1
    assert (found.name, found.label, found.metadata, found.catalog) == ("a", "metadata", b"metadata", b"catalog")
    assert found.revision == revision
    assert found.presence is not None
    assert (found.presence.incarnation, found.presence.attributes) == (ONE, {"role": "prefill"})


def test_a_label_is_fetched_with_the_catalog_of_the_agent(directory: Directory, publisher: Directory) -> None:
    session = publisher.open_publisher("a", incarnation=ONE)
    session.publish(b"full", catalog=b"c")
    session.publish(b"part", label="part")
    found = directory.fetch("a", label="part", timeout=0)
    assert (found.metadata, found.catalog) == (b"part", b"c")
    assert directory.fetch("a", timeout=0).catalog == b"c"


def test_who_waits_is_woken_by_the_publication_and_by_nothing_else(
    store: FaultyStore, directory: Directory, publisher: Directory, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    """Time stands still, so any polling would show as a hang; one transaction: the first look."""
    waiting = threads.submit(directory.fetch, "a")
    clock.until_waiting(1)
    with (
        publisher.open_publisher("a", incarnation=ONE) as session,
        publisher.open_publisher("ab", incarnation=TWO) as other,
    ):
        other.publish(b"other")
        session.publish(b"part", label="part")
        session.publish(b"metadata", catalog=b"c")
        assert waiting.result(30).metadata == b"metadata"
        assert waiting.result(30).catalog == b"c"
    assert len(store.transactions) == 1


def test_what_is_published_between_the_look_and_the_watch_is_not_missed(
    store: FaultyStore, directory: Directory, publisher: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = publisher.open_publisher("a", incarnation=ONE)
    watch = store.watch

    def late(key: str, *, after: int, wake: threading.Event) -> object:
        session.publish(b"1")
        return watch(key, after=after, wake=wake)

    monkeypatch.setattr(store, "watch", late)
    assert directory.fetch("a").metadata == b"1"


def test_a_nixl_agent_has_no_record(store: FaultyStore, directory: Directory) -> None:
    put(store, "/prod/a/")
    revision = put(store, "/prod/a/metadata", b"nixl")
    found = directory.fetch("a", timeout=0)
    assert (found.metadata, found.catalog, found.presence, found.revision) == (b"nixl", None, None, revision)
    assert directory.fetch("a", timeout=0, except_incarnations={ONE}) == found


def test_by_default_both_default_namespaces_are_searched(
    store: FaultyStore, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    directory, nixl = Directory(store, clock=clock), Directory(store, namespace=NIXL_NAMESPACE, clock=clock)
    for place in ("/nixl/agents", "/nixl/agents/"):
        waiting = [threads.submit(each.fetch, "a") for each in (directory, nixl)]
        clock.until_waiting(2)
        put(store, f"{place}/a/metadata", place.encode())
        assert [each.result(30).metadata for each in waiting] == [place.encode()] * 2
        store.transact(Transaction((), (Delete(f"{place}/a/metadata"),)), timeout=1)


def test_a_trunkline_agent_comes_before_leavings_of_nixl_s_and_else_the_newer_wins(
    store: FaultyStore, clock: FakeClock
) -> None:
    directory = Directory(store, clock=clock)
    put(store, "/nixl/agents//a/metadata", b"old")
    put(store, "/nixl/agents/a/metadata", b"new")
    assert directory.fetch("a", timeout=0).metadata == b"new"
    with directory.open_publisher("a", incarnation=ONE) as session:
        session.publish(b"ours")
        put(store, "/nixl/agents//a/metadata", b"newest")
        assert directory.fetch("a", timeout=0).metadata == b"ours"
    assert directory.fetch("a", timeout=0).metadata == b"newest"


def test_a_dead_incarnation_is_passed_over(
    store: FaultyStore, directory: Directory, publisher: Directory, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    publisher.open_publisher("a", incarnation=ONE).publish(b"1")
    with pytest.raises(AgentNotFoundError, match="incarnation 11111111, which is gone"):
        directory.fetch("a", timeout=0, except_incarnations=[ONE])
    waiting = threads.submit(directory.fetch, "a", except_incarnations=[ONE])
    clock.until_waiting(3)
    successor = publisher.open_publisher("a", incarnation=TWO, takeover=True)
    successor.publish(b"2")
    assert waiting.result(30).metadata == b"2"
    assert len(store.transactions) == 2  # the two first looks: none for the deletion or the news


def test_metadata_that_does_not_fit_its_record_is_not_believed(
    store: FaultyStore, directory: Directory, publisher: Directory, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    """As when a real NIXL agent starts under a live name."""
    session = publisher.open_publisher("a", incarnation=ONE)
    session.publish(b"ours", catalog=b"c")
    with directory.watch() as watch:
        put(store, "/prod/a/metadata", b"nixl's")
        eventually(lambda: isinstance(watch.next(0), NameConflict))
    with pytest.raises(AgentNotFoundError, match="another program has written"):
        directory.fetch("a", timeout=0)
    waiting = threads.submit(directory.fetch, "a")
    clock.until_waiting(3)
    session.publish(b"ours", catalog=b"c")
    assert waiting.result(30).metadata == b"ours"
    for catalog in (Put("/prod/.catalog/a", b"x"), Delete("/prod/.catalog/a")):
        store.transact(Transaction((), (catalog,)), timeout=1)
        with pytest.raises(AgentNotFoundError, match="another program has written"):
            directory.fetch("a", timeout=0)


def test_metadata_its_record_does_not_know_is_not_believed(
    store: FaultyStore, directory: Directory, publisher: Directory
) -> None:
    publisher.open_publisher("a", incarnation=ONE)
    put(store, "/prod/a/metadata", b"left behind")
    with pytest.raises(AgentNotFoundError, match="does not know of it"):
        directory.fetch("a", timeout=0)


def test_a_catalog_no_record_knows_is_nobody_s(store: FaultyStore, directory: Directory, publisher: Directory) -> None:
    publisher.open_publisher("a", incarnation=ONE).publish(b"1")
    put(store, "/prod/.catalog/a", b"left behind")
    assert directory.fetch("a", timeout=0).catalog is None


def test_records_that_can_t_be_read_are_errors_at_once(store: FaultyStore, directory: Directory) -> None:
    put(store, "/prod/a/metadata", b"1")
    put(store, "/prod/.presence/a", b"\xff")
    with pytest.raises(MetadataDecodeError, match=r"/prod/\.presence/a"):
        directory.fetch("a")
    put(store, "/prod/.presence/a", b'{"format":9,"min_reader":3}')
    with pytest.raises(MetadataError, match="newer Trunkline"):
        directory.fetch("a")


def test_nobody_in_time_names_similar_agents_and_where_it_looked(
    store: FaultyStore, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    directory = Directory(store, clock=clock)
    put(store, "/nixl/agents//prefill-0/metadata")
    with directory.open_publisher("prefill-1", incarnation=ONE):
        waiting = threads.submit(directory.fetch, "prefil-0", timeout=5)
        clock.until_waiting(3)
        clock.advance(5)
        with pytest.raises(AgentNotFoundError) as caught:
            waiting.result(30)
    for fact in ("'prefil-0'", "5.0 s", "/nixl/agents/ or /nixl/agents//", store.url, "'prefill-0', 'prefill-1'"):
        assert fact in str(caught.value)
    assert isinstance(caught.value, LookupError | TimeoutError)


def test_a_withdrawn_agent_is_waited_for_without_asking(
    store: FaultyStore, directory: Directory, publisher: Directory, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    session = publisher.open_publisher("a", incarnation=ONE)
    session.publish(b"1")
    session.withdraw()
    waiting = threads.submit(directory.fetch, "a")
    clock.until_waiting(3)
    session.withdraw()
    session.publish(b"2")
    assert waiting.result(30).metadata == b"2"
    assert len(store.transactions) == 1


def test_a_store_that_is_away_while_waiting_is_waited_for(
    store: FaultyStore, directory: Directory, publisher: Directory, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    store.outages = ["no endpoint answers"]
    waiting = threads.submit(directory.fetch, "a")
    clock.until_waiting(1)
    with publisher.open_publisher("a", incarnation=ONE) as session:
        session.publish(b"1")
        assert waiting.result(30).metadata == b"1"


def test_a_store_that_is_away_at_the_deadline_is_named_as_the_reason(
    store: FaultyStore, directory: Directory, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    store.outages = ["no endpoint answers"]
    waiting = threads.submit(directory.fetch, "a", timeout=5)
    clock.until_waiting(1)
    clock.advance(5)
    with pytest.raises(AgentNotFoundError, match=r"unreachable \(no endpoint answers\).*Check the store"):
        waiting.result(30)


def test_a_store_that_is_away_at_the_start_is_its_own_error(store: FaultyStore, directory: Directory) -> None:
    store.faults.append(Fault.LOST_REQUEST)
    with pytest.raises(StoreUnavailableError):
        directory.fetch("a")


@pytest.mark.parametrize(("name", "label"), [("a/b", "metadata"), ("", "metadata"), ("a", ".x")])
def test_impossible_names_are_refused(directory: Directory, name: str, label: str) -> None:
    with pytest.raises(ConfigurationError):
        directory.fetch(name, label=label)


def test_many_are_fetched_in_few_transactions(store: FaultyStore, directory: Directory, publisher: Directory) -> None:
    names = [f"a{number}" for number in range(50)]
    for number, name in enumerate(names):
        publisher.open_publisher(name, incarnation=f"{number:032x}").publish(name.encode(), catalog=b"c")
    found = list(directory.fetch_many([*names, "a0"], timeout=0))
    assert [each.name for each in found] == names
    assert [each.metadata for each in found] == [name.encode() for name in names]
    assert len(store.transactions) == 2
    assert all(len(transaction.then) <= 128 for transaction in store.transactions)


def test_of_many_those_that_are_there_come_first_and_the_others_are_waited_for(
    directory: Directory, publisher: Directory, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    sessions = {
        name: publisher.open_publisher(name, incarnation=f"{number:032x}") for number, name in enumerate("abcd")
    }
    sessions["c"].publish(b"c")
    fetching = directory.fetch_many(["a", "b", "c", "d"])
    assert next(fetching).name == "c"
    rest = threads.submit(lambda: [each.name for each in fetching])
    clock.until_waiting(1)
    for name in "dba":
        sessions[name].publish(name.encode())
    assert rest.result(30) == ["a", "b", "d"]


def test_one_of_many_that_does_not_come_is_named_once_the_time_is_over(
    directory: Directory, publisher: Directory, clock: FakeClock, threads: ThreadPoolExecutor
) -> None:
    publisher.open_publisher("a", incarnation=ONE).publish(b"a")
    fetching = directory.fetch_many(["missing", "a"], timeout=5)
    assert next(fetching).name == "a"
    waiting = threads.submit(next, fetching)
    clock.until_waiting(1)
    clock.advance(5)
    with pytest.raises(AgentNotFoundError, match="'missing'"):
        waiting.result(30)


def test_many_may_be_none_but_not_a_text(store: FaultyStore, directory: Directory) -> None:
    assert list(directory.fetch_many([])) == []
    with pytest.raises(ConfigurationError, match="list of names"):
        directory.fetch_many("abc")
    with pytest.raises(ConfigurationError):
        directory.fetch_many(["a", "b/c"])
    assert not store.transactions
