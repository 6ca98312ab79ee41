"""Who is there, from what the store says of keys: against a plain model, in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.directory.roster_bench import ALL, ONE, RECORDS, TTL, TWO, Bench, entry, record, told

from trunkline.directory.event import LeaveReason, PeerJoined, PeerLeft, PeerSuspect, PeerUpdated
from trunkline.directory.roster import SETTLE
from trunkline.store.contract import NO_LEASE, Changed, Entry, Interrupted, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trunkline.directory.event import DirectoryEvent
    from trunkline.metadata.presence import State


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
