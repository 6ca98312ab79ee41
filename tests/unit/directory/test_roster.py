"""Who is there, from what the store says of keys: by example, and against a plain model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trunkline.directory import mirror
from trunkline.directory.event import (
    LeaveReason,
    PeerJoined,
    PeerLeft,
    PeerSuspect,
    PeerUpdated,
    StoreBack,
    StoreLost,
)
from trunkline.directory.roster import SETTLE, Roster
from trunkline.metadata.presence import ContentRecord, LabelRecord, Presence, encode_presence
from trunkline.store.contract import NO_LEASE, Changed, Entry, Interrupted, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trunkline.directory.event import DirectoryEvent
    from trunkline.metadata.presence import State

RECORDS, ALL = "/prod/.presence/", "/prod/"
TTL = 10.0
ONE, TWO = "1" * 32, "2" * 32
SHA = "0" * 64


def record(
    incarnation: str = ONE,
    labels: dict[str, int] | None = None,
    *,
    state: State = "ready",
    attributes: dict[str, str] | None = None,
) -> bytes:
    return encode_presence(
        Presence(
            incarnation=incarnation,
            labels={
                label: LabelRecord(1, SHA, generation)
                for label, generation in ({"metadata": 1} if labels is None else labels).items()
            },
            state=state,
            attributes=attributes or {},
            ttl=TTL,
            catalog=ContentRecord(1, SHA),
        )
    )


def entry(name: str, value: bytes, revision: int, *, prefix: str = RECORDS) -> Entry:
    return Entry(prefix + name, value, revision, revision, lease=7)


def nixl(key: str, revision: int) -> Entry:
    return Entry(ALL + key, b"blob", revision, revision)


class Bench:
    """A roster with a clock that a test moves."""

    def __init__(self, namespace: str = "/prod") -> None:
        self.roster = Roster(namespace, ttl=TTL)
        self.now = 0.0

    def snapshot(self, *entries: Entry, revision: int = 1, source: str = RECORDS) -> list[DirectoryEvent]:
        return self.roster.apply(source, Snapshot(entries, revision), self.now)

    def put(self, *entries: Entry, source: str = RECORDS) -> list[DirectoryEvent]:
        return self.roster.apply(source, Changed(entries, (), entries[-1].mod_revision), self.now)

    def delete(self, *keys: str, revision: int, source: str = RECORDS) -> list[DirectoryEvent]:
        return self.roster.apply(source, Changed((), keys, revision), self.now)

    def interrupt(self, source: str = RECORDS) -> list[DirectoryEvent]:
        return self.roster.apply(source, Interrupted("gone"), self.now)

    def pass_time(self, seconds: float) -> list[DirectoryEvent]:
        self.now += seconds
        return self.roster.tick(self.now)

    def quiet(self) -> list[DirectoryEvent]:
        """Tick past everything that is due."""
        events: list[DirectoryEvent] = []
        while (due := self.roster.next_due) is not None:
            self.now = max(self.now, due)
            events.extend(self.roster.tick(self.now))
        return events

    @property
    def names(self) -> list[str]:
        return sorted(self.roster.view([RECORDS], self.now))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def told(events: Iterable[DirectoryEvent]) -> list[str]:
    """Events in short: ``joined a``, ``left a expired``."""
    short = []
    for event in events:
        kind = type(event).__name__.removeprefix("Peer").lower()
        if isinstance(event, PeerLeft):
            short.append(f"left {event.name} {event.reason}")
        elif isinstance(event, PeerUpdated):
            short.append(f"updated {event.name} {event.label} {event.generation}")
        else:
            short.append(f"{kind} {event.name}" if isinstance(event, (PeerJoined, PeerSuspect)) else kind)
    return short


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


class RosterMachine(RuleBasedStateMachine):
    """A store's keys, and two watches of them that lag behind as they like, against what the roster tells."""

    NAMES = st.sampled_from("abcde")

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.revision = 1
        self.base = 0
        self.keys: dict[str, Entry] = {}
        self.history: list[Changed] = []
        self.heard: dict[str, int | None] = {RECORDS: None, ALL: None}
        self.away: set[str] = set()
        self.folded: set[str] = set()
        self.suspects: set[str] = set()

    def take(self, events: Iterable[DirectoryEvent]) -> None:
        for event in events:
            if isinstance(event, PeerJoined):
                assert event.name not in self.folded or event.name in self.suspects
                self.folded.add(event.name)
                self.suspects.discard(event.name)
            elif isinstance(event, PeerLeft):
                assert not (self.away and event.reason is LeaveReason.EXPIRED)
                self.folded.remove(event.name)
                self.suspects.discard(event.name)
            elif isinstance(event, PeerSuspect):
                assert event.name in self.folded - self.suspects
                self.suspects.add(event.name)
            elif isinstance(event, PeerUpdated):
                assert event.name in self.folded

    def commit(self, put: tuple[Entry, ...], deleted: tuple[str, ...]) -> None:
        self.history.append(Changed(put, deleted, self.revision))
        self.keys.update((each.key, each) for each in put)
        for key in deleted:
            self.keys.pop(key, None)

    @rule(
        name=NAMES,
        incarnation=st.sampled_from([ONE, TWO]),
        labels=st.dictionaries(st.sampled_from(["metadata", "kv"]), st.integers(1, 3)),
        state=st.sampled_from(["ready", "ready", "draining", "withdrawn"]),
    )
    def put_record(self, name: str, incarnation: str, labels: dict[str, int], state: State) -> None:
        self.revision += 1
        self.commit((entry(name, record(incarnation, labels, state=state), self.revision),), ())

    @rule(name=NAMES, label=st.sampled_from(["", "metadata", "kv"]), lease=st.sampled_from([NO_LEASE, NO_LEASE, 7]))
    def put_key(self, name: str, label: str, lease: int) -> None:
        self.revision += 1
        self.commit((Entry(f"{ALL}{name}/{label}", b"", self.revision, self.revision, lease),), ())

    @rule(names=st.sets(NAMES, min_size=1))
    def delete_records(self, names: set[str]) -> None:
        gone = tuple(RECORDS + name for name in sorted(names) if RECORDS + name in self.keys)
        if gone:
            self.revision += 1
            self.commit((), gone)

    @rule(name=NAMES)
    def delete_keys(self, name: str) -> None:
        gone = tuple(key for key in self.keys if key.startswith(f"{ALL}{name}/"))
        if gone:
            self.revision += 1
            self.commit((), gone)

    @precondition(lambda self: None not in self.heard.values())
    @rule(revision=st.integers(1, 40), kept=st.sets(NAMES))
    def replace_cluster(self, revision: int, kept: set[str]) -> None:
        """Restore a backup: other revisions, some of the keys, and every watch begins with a snapshot."""
        self.revision = revision
        self.history.clear()
        self.keys = {
            key: Entry(key, each.value, 1, 1, each.lease) for key, each in self.keys.items() if key[-1:] in kept
        }
        for source in self.heard:
            self.deliver_snapshot(source)

    @rule(source=st.sampled_from([RECORDS, ALL]))
    def deliver(self, source: str) -> None:
        heard = self.heard[source]
        if heard is None:
            self.deliver_snapshot(source)
            return
        for change in self.history:
            put = tuple(each for each in change.put if each.key.startswith(source))
            deleted = tuple(key for key in change.deleted if key.startswith(source))
            if change.revision > heard and (put or deleted):
                self.apply(source, Changed(put, deleted, change.revision))
                return

    @rule(source=st.sampled_from([RECORDS, ALL]))
    def deliver_snapshot(self, source: str) -> None:
        """As after a compaction."""
        entries = tuple(each for key, each in sorted(self.keys.items()) if key.startswith(source))
        self.apply(source, Snapshot(entries, self.revision))

    @rule(source=st.sampled_from([RECORDS, ALL]))
    def interrupt(self, source: str) -> None:
        self.away.add(source)
        self.take(self.bench.roster.apply(source, Interrupted("gone"), self.bench.now))

    def apply(self, source: str, event: Changed | Snapshot) -> None:
        self.away.discard(source)
        self.heard[source] = event.revision
        self.take(self.bench.roster.apply(source, event, self.bench.now))

    @rule(seconds=st.sampled_from([0.3, SETTLE, TTL / 2, TTL]))
    def pass_time(self, seconds: float) -> None:
        self.take(self.bench.pass_time(seconds))

    @rule()
    def catch_up_and_be_quiet(self) -> None:
        for source in self.heard:
            if self.heard[source] is None or source in self.away:
                self.deliver_snapshot(source)
            for _ in self.history:
                self.deliver(source)
        self.take(self.bench.quiet())
        assert self.folded == self.there()
        assert not self.suspects

    def there(self) -> set[str]:
        names = set()
        for name in "abcde":
            known = self.keys.get(RECORDS + name)
            if known is not None:
                is_there = b'"withdrawn"' not in known.value and b'"generation"' in known.value
            else:
                labels = [self.keys.get(f"{ALL}{name}/{label}") for label in ("metadata", "kv")]
                marker = self.keys.get(f"{ALL}{name}/")
                started = 0 if marker is None else marker.mod_revision
                is_there = any(
                    each is not None and each.lease == NO_LEASE and each.mod_revision >= started for each in labels
                )
            if is_there:
                names.add(name)
        return names

    @invariant()
    def what_was_told_is_what_is_shown(self) -> None:
        view = self.bench.roster.view([RECORDS], self.bench.now)
        assert set(view) == self.folded
        assert {name for name, listing in view.items() if listing.is_suspect} == self.suspects
        replayed = told(self.bench.roster.events_so_far())
        assert sorted(replayed) == sorted(
            [f"joined {name}" for name in self.folded] + [f"suspect {name}" for name in self.suspects]
        )


TestAgainstTheModel = RosterMachine.TestCase
TestAgainstTheModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
