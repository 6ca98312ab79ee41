"""Who is there, from what the store says of keys: by example."""

from __future__ import annotations

import pytest
from tests.unit.directory.roster_bench import ALL, ONE, RECORDS, TTL, TWO, Bench, entry, record, told

from trunkline.directory import mirror
from trunkline.directory.event import PeerJoined, PeerLeft, StoreBack, StoreLost
from trunkline.directory.roster import SETTLE
from trunkline.store.contract import Entry, Interrupted


def nixl(key: str, revision: int) -> Entry:
    return Entry(ALL + key, b"blob", revision, revision)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_joined_updated_withdrawn(bench: Bench) -> None:
    assert told(bench.snapshot(entry("a", record(), 2), revision=2)) == ["joined a"]
    assert told(bench.put(entry("a", record(labels={"metadata": 2, "kv": 1}), 3))) == [
        "updated a metadata 2",
        "updated a kv 1",
    ]
    assert told(bench.put(entry("a", record(labels={"metadata": 2}), 4))) == ["updated a kv None"]
    assert told(bench.put(entry("a", record(labels={"metadata": 2}, state="draining"), 5))) == ["updated a None None"]
    assert told(bench.put(entry("a", record(labels={"metadata": 2}, attributes={"x": "y"}), 6))) == [
        "updated a None None"
    ]
    assert told(bench.put(entry("a", record(labels={}, state="withdrawn"), 7))) == ["left a withdrawn"]
    assert told(bench.delete(RECORDS + "a", revision=8)) == []
    assert bench.roster.next_due is None


def test_a_clock_that_jumps_ends_nobody_who_is_there(bench: Bench) -> None:
    bench.snapshot(entry("a", record(), 2), entry("b", record(), 3), revision=3)
    assert bench.pass_time(86_400) == []
    bench.delete(RECORDS + "a", revision=4)
    assert told(bench.pass_time(86_400)) == ["left a expired"]
    assert bench.names == ["b"]


def test_one_that_published_nothing_is_not_there(bench: Bench) -> None:
    assert bench.snapshot(entry("a", record(labels={}), 2), revision=2) == []
    assert told(bench.put(entry("a", record(), 3))) == ["joined a"]
    assert told(bench.put(entry("a", record(labels={}), 4))) == ["left a withdrawn"]


def test_one_that_vanishes_has_left_when_it_is_settled(bench: Bench) -> None:
    bench.snapshot(entry("a", record(), 2), revision=2)
    assert bench.delete(RECORDS + "a", revision=3) == []
    assert bench.names == ["a"]
    assert bench.pass_time(SETTLE - 0.1) == []
    assert told(bench.pass_time(0.1)) == ["left a expired"]
    assert bench.names == []


def test_a_successor_supersedes(bench: Bench) -> None:
    bench.snapshot(entry("a", record(ONE), 2), revision=2)
    bench.delete(RECORDS + "a", revision=3)
    assert told(bench.put(entry("a", record(TWO), 4))) == ["left a superseded", "joined a"]


def test_a_successor_that_has_published_nothing_yet_supersedes_too(bench: Bench) -> None:
    bench.snapshot(entry("a", record(ONE), 2), revision=2)
    bench.delete(RECORDS + "a", revision=3)
    assert told(bench.put(entry("a", record(TWO, labels={}), 4))) == ["left a superseded"]
    assert told(bench.put(entry("a", record(TWO), 5))) == ["joined a"]


def test_the_same_incarnation_in_a_new_session_tells_nothing(bench: Bench) -> None:
    bench.snapshot(entry("a", record(), 2), revision=2)
    bench.delete(RECORDS + "a", revision=3)
    assert bench.put(entry("a", record(), 4)) == []
    assert bench.quiet() == []


def test_when_most_vanish_together_they_are_suspects(bench: Bench) -> None:
    bench.snapshot(*(entry(name, record(), 2) for name in "abcd"), revision=2)
    bench.delete(*(RECORDS + name for name in "abc"), revision=3)
    assert told(bench.pass_time(SETTLE)) == ["suspect a", "suspect b", "suspect c"]
    assert told(bench.put(entry("b", record(), 4))) == ["joined b"]
    assert bench.roster.view([RECORDS], bench.now)["a"].is_suspect
    assert told(bench.roster.events_so_far()).count("suspect a") == 1
    assert bench.pass_time(TTL - 0.1) == []
    assert told(bench.pass_time(0.1)) == ["left a expired", "left c expired"]


@pytest.mark.parametrize(("there", "gone"), [(2, 2), (6, 3)])
def test_few_that_vanish_together_have_left(bench: Bench, there: int, gone: int) -> None:
    names = "abcdef"[:there]
    bench.snapshot(*(entry(name, record(), 2) for name in names), revision=2)
    bench.delete(*(RECORDS + name for name in names[:gone]), revision=3)
    assert told(bench.pass_time(SETTLE)) == [f"left {name} expired" for name in names[:gone]]


def test_nobody_leaves_while_the_store_is_away_and_all_have_a_ttl_after(bench: Bench) -> None:
    bench.snapshot(entry("a", record(), 2), entry("b", record(), 2), revision=2)
    bench.delete(RECORDS + "a", revision=3)
    assert told(bench.interrupt()) == ["storelost"]
    assert bench.interrupt() == []
    assert bench.roster.next_due is None
    assert bench.pass_time(1000) == []
    view = bench.roster.view([RECORDS], bench.now)
    assert (sorted(view), view.age) == (["a", "b"], 1000)
    assert told(bench.snapshot(revision=4)) == ["storeback"]
    assert told(bench.pass_time(SETTLE)) == ["suspect a", "suspect b"]
    assert told(bench.quiet()) == ["left a expired", "left b expired"]


def test_an_agent_here_that_lost_its_lease_excuses_the_others(bench: Bench) -> None:
    bench.snapshot(entry("a", record(), 2), revision=2)
    bench.roster.excuse(bench.now)
    bench.delete(RECORDS + "a", revision=3)
    assert told(bench.pass_time(SETTLE)) == ["suspect a"]


def test_unreadable_records(bench: Bench) -> None:
    newer = b'{"format": 9, "min_reader": 9}'
    (joined,) = bench.snapshot(entry("new", newer, 2), entry("bad", b"{", 2), entry("a/b", record(), 2), revision=2)
    assert isinstance(joined, PeerJoined)
    assert (joined.name, joined.agent.is_readable) == ("new", False)
    bench.put(entry("a", record(), 3))
    assert bench.put(entry("a", b"nonsense", 4)) == []
    assert told(bench.pass_time(SETTLE)) == ["left a expired"]


def test_agents_of_nixl_have_labels_without_a_lease(bench: Bench) -> None:
    (joined,) = bench.snapshot(nixl("n/", 2), nixl("n/metadata", 3), revision=3, source=ALL)
    assert isinstance(joined, PeerJoined)
    assert (joined.agent.is_nixl, joined.agent.incarnation, dict(joined.agent.labels)) == (True, "2", {"metadata": 3})
    assert told(bench.put(nixl("n/metadata", 4), source=ALL)) == ["updated n metadata 4"]
    assert told(bench.delete(ALL + "n/metadata", revision=5, source=ALL)) == ["left n withdrawn"]


@pytest.mark.parametrize("left", [(), (nixl("n/", 4),)], ids=["nothing", "marker"])
def test_one_of_nixl_that_was_withdrawn_before_it_was_followed_has_left(bench: Bench, left: tuple[Entry, ...]) -> None:
    assert bench.snapshot(nixl("m/metadata", 2), revision=5, source=ALL + "m/")
    (event,) = bench.snapshot(*left, revision=5, source=ALL + "n/")
    assert isinstance(event, PeerLeft)
    assert (told([event]), event.agent.is_nixl, bench.names) == (["left n withdrawn"], True, ["m"])
    assert told(bench.put(nixl("n/metadata", 6), source=ALL + "n/")) == ["joined n"]
    assert told(bench.snapshot(revision=7, source=ALL + "n/")) == ["left n withdrawn"]


def test_one_of_nixl_is_missing_only_if_it_is_in_neither_namespace() -> None:
    bench = Bench("/nixl/agents")
    near, far = "/nixl/agents/n/", "/nixl/agents//n/"
    assert bench.snapshot(revision=2, source=near) == []
    assert told(bench.snapshot(Entry(f"{far}metadata", b"", 2, 2), revision=2, source=far)) == ["joined n"]
    assert bench.snapshot(revision=2, source=near) == []
    assert told(bench.delete(f"{far}metadata", revision=3, source=far)) == ["left n withdrawn"]


def test_what_is_left_of_our_own_agents_is_none_of_nixls(bench: Bench) -> None:
    leased = Entry(ALL + "a/metadata", b"", 2, 2, lease=7)
    assert bench.snapshot(leased, revision=2, source=ALL) == []
    assert told(bench.put(entry("a", record(), 3))) == ["joined a"]


def test_a_name_in_both_namespaces_is_its_latest() -> None:
    bench = Bench("/nixl/agents")
    near, far = "/nixl/agents/.presence/", "/nixl/agents//.presence/"
    bench.snapshot(entry("a", record(ONE), 2, prefix=near), revision=2, source=near)
    events = bench.snapshot(entry("a", record(TWO), 3, prefix=far), revision=3, source=far)
    assert told(events) == ["left a superseded", "joined a"]
    assert bench.roster.view([near, far], 0)["a"].namespace == "/nixl/agents/"
    assert told(bench.delete(far + "a", revision=4, source=far)) == ["left a superseded", "joined a"]


def test_late_news_of_a_slower_watch_changes_nothing(bench: Bench) -> None:
    bench.snapshot(revision=1)
    bench.put(entry("a", record(ONE), 2))
    bench.delete(RECORDS + "a", revision=4)
    bench.quiet()
    assert bench.snapshot(entry("a", record(ONE), 2), revision=2, source=ALL) == []
    assert bench.put(entry("a", record(ONE, labels={"metadata": 2}), 3), source=ALL) == []
    assert bench.roster.revision_of("a") == 4
    assert bench.delete(RECORDS + "a", revision=4, source=ALL) == []
    assert told(bench.put(entry("a", record(ONE), 5))) == ["joined a"]
    assert bench.delete(RECORDS + "a", revision=4, source=ALL) == []
    assert bench.quiet() == []
    assert bench.roster.revision_of("a") == 5


def test_deleted_keys_are_not_remembered_without_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "TOMBSTONES", 3)
    bench.snapshot(revision=1)
    bench.delete(*(f"{RECORDS}{number}" for number in range(9)), revision=2)
    assert len(bench.roster._mirror._tombstones) == 3


@pytest.mark.parametrize("revision", [3, 50])
def test_another_history_replaces_what_was_known(bench: Bench, revision: int) -> None:
    """A cluster that was set up anew may count less or more than the one before, with older keys in any case."""
    bench.snapshot(entry("a", record(ONE), 20), entry("b", record(ONE), 20), revision=20)
    bench.delete(RECORDS + "c", revision=22)
    events = bench.snapshot(entry("a", record(TWO), 3), entry("c", record(TWO), 3), revision=revision)
    assert told(events) == ["left a superseded", "joined a", "joined c"]
    assert told(bench.quiet()) == ["left b expired"]


def test_closing_a_watch_keeps_what_another_follows(bench: Bench) -> None:
    own = ALL + "n/"
    bench.snapshot(nixl("n/", 2), nixl("n/metadata", 2), nixl("m/metadata", 2), revision=2, source=ALL)
    bench.snapshot(nixl("n/", 2), nixl("n/metadata", 2), revision=2, source=own)
    bench.put(entry("a", record(), 3), source=ALL)
    assert told(bench.roster.forget(ALL, [RECORDS, own], 0)) == ["left m withdrawn"]
    assert bench.names == ["a", "n"]
    assert told(bench.roster.forget(own, [RECORDS], 0)) == ["left n withdrawn"]


def test_an_outage_ends_with_the_last_watch_that_is_away(bench: Bench) -> None:
    bench.snapshot(revision=1)
    bench.snapshot(revision=1, source=ALL)
    assert [type(event) for event in bench.interrupt() + bench.interrupt(ALL)] == [StoreLost]
    assert bench.snapshot(revision=1) == []
    assert bench.roster.outage() == StoreLost("gone")
    assert [type(event) for event in bench.roster.forget(ALL, [RECORDS], 0)] == [StoreBack]
    assert bench.roster.outage() is None
    assert bench.roster.has_heard([RECORDS])
    assert not bench.roster.has_heard([RECORDS, ALL])


def test_an_outage_that_turns_out_to_be_a_missing_right_is_told_again(bench: Bench) -> None:
    bench.snapshot(revision=1)
    bench.snapshot(revision=1, source=ALL)
    bench.interrupt()
    for source, told_of in ((RECORDS, [StoreLost("denied")]), (ALL, []), (RECORDS, [])):
        assert bench.roster.apply(source, Interrupted("denied"), bench.now) == told_of
    assert bench.roster.outage() == StoreLost("denied")
