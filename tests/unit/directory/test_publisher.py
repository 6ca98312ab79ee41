"""What a publisher writes: when it opens, publishes, updates, withdraws and closes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.directory.conftest import ONE, changes, keys, record

from trunkline.errors import ClosedError, ConfigurationError, DeadlineError
from trunkline.metadata.presence import content_record, decode_presence
from trunkline.store.contract import Put, Transaction

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from trunkline.directory import Directory, Publisher
    from trunkline.store.contract import Store, TransactionResult
    from trunkline.testing.faulty_store import FaultyStore


def test_opening_puts_marker_and_record_on_one_lease_at_one_revision(store: FaultyStore, session: Publisher) -> None:
    entries = keys(store)
    assert set(entries) == {"a/", ".presence/a"}
    assert {entry.lease for entry in entries.values()} == {store.leases[0].id}
    assert len({entry.mod_revision for entry in entries.values()}) == 1
    assert entries["a/"].value == b""
    assert (session.name, session.incarnation, session.ttl, session.lost) == ("a", ONE, 30, None)


def test_the_record_says_who_the_agent_is(store: FaultyStore, directory: Directory) -> None:
    directory.open_publisher("a", incarnation=ONE, attributes={"role": "prefill"}, backends=["UCX"])
    presence = record(store)
    assert presence.incarnation == ONE
    assert presence.attributes == {"role": "prefill"}
    assert presence.backends == ("UCX",)
    assert presence.software.startswith("trunkline")
    assert presence.process.pid > 0
    assert presence.labels == {}


@pytest.mark.parametrize(
    "bad",
    [
        {"ttl": 1.9},
        {"ttl": float("nan")},
        {"ttl": float("inf")},
        {"ttl": -1},
        {"incarnation": "abc"},
        {"attributes": {"": "x"}},
        {"name": ".a"},
        {"name": "a/b"},
    ],
)
def test_what_can_t_be_opened_leaves_nothing(store: FaultyStore, directory: Directory, bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        directory.open_publisher(**{"name": "a", "incarnation": ONE, **bad})
    assert keys(store) == {}
    assert store.leases == []


def test_publishing_is_one_transaction(store: FaultyStore, session: Publisher) -> None:
    before = len(store.transactions)
    revision = session.publish(b"metadata", catalog=b"catalog")
    assert len(store.transactions) == before + 1
    entries = keys(store)
    assert {key: entry.value for key, entry in entries.items() if key != ".presence/a"} == {
        "a/": b"",
        "a/metadata": b"metadata",
        ".catalog/a": b"catalog",
    }
    written = {key for key, entry in entries.items() if entry.mod_revision == revision}
    assert written == {"a/metadata", ".catalog/a", ".presence/a"}
    assert {entry.lease for entry in entries.values()} == {store.leases[0].id}
    presence = record(store)
    assert presence.labels["metadata"].describes(b"metadata")
    assert presence.labels["metadata"].generation == 1
    assert presence.catalog == content_record(b"catalog")


def test_publishing_again_replaces_and_leaves_the_marker_alone(store: FaultyStore, session: Publisher) -> None:
    first = session.publish(b"1", catalog=b"c")
    session.publish(b"2")
    assert changes(store, first) == [({"a/metadata", ".presence/a"}, {".catalog/a"})]
    assert keys(store)["a/metadata"].value == b"2"
    assert record(store).labels["metadata"].generation == 2
    assert record(store).catalog is None


def test_other_labels_stand_beside_the_full_metadata(store: FaultyStore, session: Publisher) -> None:
    session.publish(b"full", catalog=b"c")
    session.publish(b"part", label="part")
    assert keys(store).keys() == {"a/", "a/metadata", "a/part", ".presence/a", ".catalog/a"}
    assert [label.generation for label in record(store).labels.values()] == [1, 2]
    session.publish(b"part", catalog=b"more", label="part")
    assert keys(store)[".catalog/a"].value == b"more"
    session.publish(b"part", catalog=b"", label="part")
    assert ".catalog/a" not in keys(store)
    assert session.holds(b"part", catalog=b"", label="part")
    with pytest.raises(ConfigurationError, match="slash"):
        session.publish(b"part", label="a/b")


def test_there_is_an_end_to_labels(store: FaultyStore, session: Publisher) -> None:
    for number in range(64):
        session.publish(b"", label=f"label-{number}")
    session.publish(b"again", label="label-7")
    with pytest.raises(ConfigurationError, match="64"):
        session.publish(b"", label="one-more")
    session.withdraw()
    assert keys(store).keys() == {".presence/a"}


def test_withdrawing_deletes_all_but_the_record_and_the_marker_comes_back_later(
    store: FaultyStore, session: Publisher
) -> None:
    start = session.publish(b"1", catalog=b"c")
    session.publish(b"part", label="part")
    session.withdraw()
    session.withdraw()
    session.publish(b"2")
    session.publish(b"3")
    assert changes(store, start)[1:] == [
        ({".presence/a"}, {"a/", "a/metadata", "a/part", ".catalog/a"}),
        ({"a/", "a/metadata", ".presence/a"}, set()),
        ({"a/metadata", ".presence/a"}, set()),
    ]
    assert session.lost is None


def test_withdrawing_one_label_leaves_the_others(store: FaultyStore, session: Publisher) -> None:
    session.publish(b"full", catalog=b"c")
    session.publish(b"part", label="part")
    session.withdraw(label="part")
    assert keys(store).keys() == {"a/", "a/metadata", ".presence/a", ".catalog/a"}
    session.publish(b"part", label="part")
    session.withdraw(label="metadata")
    assert keys(store).keys() == {"a/", "a/part", ".presence/a", ".catalog/a"}
    assert record(store).labels.keys() == {"part"}
    session.withdraw(label="part")
    assert keys(store).keys() == {".presence/a"}


def test_nothing_new_costs_no_write(store: FaultyStore, session: Publisher) -> None:
    revision = session.publish(b"1", catalog=b"c")
    assert session.publish(b"1", catalog=b"c") == revision
    assert session.publish(b"1", catalog=b"d") > revision
    session.publish(b"part", label="part")
    before = len(store.transactions)
    session.publish(b"part", label="part")
    session.update(attributes=session.attributes)
    assert len(store.transactions) == before


def test_attributes_and_state_are_one_put(store: FaultyStore, session: Publisher) -> None:
    start = session.publish(b"1")
    session.update(attributes={"role": "decode"}, state="draining")
    assert changes(store, start) == [({".presence/a"}, set())]
    assert record(store).attributes == session.attributes == {"role": "decode"}
    assert record(store).state == session.state == "draining"
    assert record(store).labels["metadata"].generation == 1
    assert record(store).ttl == 30


def test_a_marker_that_somebody_else_put_is_left_alone(
    store: FaultyStore, session: Publisher, other_store: Store
) -> None:
    session.publish(b"1")
    session.withdraw()
    start = other_store.transact(Transaction((), (Put("/prod/a/", b""),)), timeout=1).revision
    session.publish(b"2")
    assert changes(store, start) == [({"a/metadata", ".presence/a"}, set())]
    session.withdraw()
    assert "a/" not in keys(store)


def test_closing_gives_the_name_up_with_word_that_it_was_meant(store: FaultyStore, session: Publisher) -> None:
    start = session.publish(b"1", catalog=b"c")
    session.close()
    assert changes(store, start) == [
        ({".presence/a"}, {"a/", "a/metadata", ".catalog/a"}),
        (set(), {".presence/a"}),
    ]
    last = next(iter(store.transactions[-1].then[-1:]))
    assert isinstance(last, Put)
    assert decode_presence(last.value).state == "withdrawn"
    session.close()
    assert keys(store) == {}
    with pytest.raises(ClosedError):
        session.publish(b"1")
    with pytest.raises(ClosedError):
        session.withdraw()
    assert session.lost is None
    assert "closed" in repr(session)


def test_many_threads_publish_one_after_the_other(
    store: FaultyStore, session: Publisher, threads: ThreadPoolExecutor
) -> None:
    revisions = list(threads.map(lambda number: session.publish(b"", label=f"label-{number}"), range(16)))
    assert len(set(revisions)) == 16
    assert sorted(label.generation for label in record(store).labels.values()) == list(range(1, 17))


def test_waiting_for_another_publication_has_an_end(
    store: FaultyStore, session: Publisher, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    transact = store.transact

    def slow(transaction: Transaction, *, timeout: float | None) -> TransactionResult:
        entered.set()
        assert go_on.wait(30)
        return transact(transaction, timeout=timeout)

    monkeypatch.setattr(store, "transact", slow)
    first = threads.submit(session.publish, b"1")
    assert entered.wait(30)
    with pytest.raises(DeadlineError, match="'a'"):
        session.publish(b"2", timeout=0)
    go_on.set()
    first.result(30)
