from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.inspection.conftest import NAMESPACE, blob

from trunkline.clock import Deadline
from trunkline.errors import StoreAuthError
from trunkline.inspection.keyspace import read_keyspace, read_leases, read_values
from trunkline.metadata.key import DEFAULT_NAMESPACE, KeyKind

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from trunkline.directory import Directory
    from trunkline.store.contract import Store


def test_each_key_is_known_for_what_it_is(store: Store, directory: Directory, put: Callable[..., int]) -> None:
    with directory.open_publisher("a", incarnation="1" * 32) as publisher:
        publisher.publish(blob("a"), catalog=b"{}")
        put(f"{NAMESPACE}/.chunks/a/7/0")
        revision = put(f"{NAMESPACE}/deeper/agents/b/metadata")
        put("/production/x/metadata")
        keyspace = read_keyspace(store, NAMESPACE, timeout=5)
    assert [(key.kind, key.part, key.is_leased) for key in keyspace.by_agent()[NAMESPACE, "a"]] == [
        (KeyKind.CATALOG, "", True),
        (KeyKind.CHUNK, "7/0", False),
        (KeyKind.PRESENCE, "", True),
        (KeyKind.MARKER, "", True),
        (KeyKind.LABEL, "metadata", True),
    ]
    assert [entry.key for entry in keyspace.others] == [f"{NAMESPACE}/deeper/agents/b/metadata"]
    assert keyspace.revision == revision + 1
    assert all(key.entry.value == b"" for key in keyspace.keys)


def test_the_default_namespace_has_two_forms(store: Store, put: Callable[..., int]) -> None:
    put("/nixl/agents//theirs/")
    put("/nixl/agents/theirs/metadata")
    keyspace = read_keyspace(store, DEFAULT_NAMESPACE, timeout=5)
    assert set(keyspace.by_agent()) == {("/nixl/agents/", "theirs"), ("/nixl/agents", "theirs")}


def test_values_come_batch_by_batch(store: Store, put: Callable[..., int]) -> None:
    put("/x", b"1")
    put("/y", b"2")
    found = list(read_values(store, [["/x", "/gone"], ["/y"]], Deadline(5)))
    assert [{key: entry.value for key, entry in batch.items()} for batch in found] == [{"/x": b"1"}, {"/y": b"2"}]


def test_leases_that_are_gone_or_forbidden_are_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = store.grant(30, timeout=5)
    left = read_leases(store, [lease.id, lease.id, 0, 12345], Deadline(5))
    assert set(left) == {lease.id, 12345}
    assert 28 <= (left[lease.id] or 0) <= 30
    assert left[12345] is None

    def refuse(*_: object, **__: object) -> None:
        raise StoreAuthError("no")

    monkeypatch.setattr(store, "time_to_live", refuse)
    assert read_leases(store, [lease.id], Deadline(5)) == {lease.id: None}
    lease.close()
