from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.directory import Directory
from trunkline.errors import ConfigurationError, MetadataDecodeError
from trunkline.metadata.key import NIXL_NAMESPACE
from trunkline.store.contract import Put, Snapshot, Store, Transaction

if TYPE_CHECKING:
    from trunkline.testing.clock import FakeClock
    from trunkline.testing.faulty_store import FaultyStore

ONE, TWO = "1" * 32, "2" * 32


def put(store: Store, *keys: str, value: bytes = b"") -> None:
    store.transact(Transaction((), tuple(Put(key, value) for key in keys)), timeout=1)


@pytest.mark.parametrize("namespace", ["", "prod", "/a\n"])
def test_a_bad_namespace_is_refused(store: FaultyStore, namespace: str) -> None:
    with pytest.raises(ConfigurationError, match="namespace"):
        Directory(store, namespace=namespace)


def test_names_are_of_ours_and_of_nixl_s_in_both_default_places(store: FaultyStore, clock: FakeClock) -> None:
    directory, nixl = Directory(store, clock=clock), Directory(store, namespace=NIXL_NAMESPACE, clock=clock)
    assert directory.names() == []
    put(store, "/nixl/agents//real/", "/nixl/agents//real/metadata", "/nixl/agents/other/conn_info_1")
    with directory.open_publisher("ours", incarnation=ONE) as ours, nixl.open_publisher("theirs", incarnation=TWO):
        ours.publish(b"1", catalog=b"c")
        ours.withdraw()  # its record stays
        assert directory.names() == nixl.names() == ["other", "ours", "real", "theirs"]
    assert directory.names() == ["other", "real"]


def test_a_namespace_has_its_own_names_only(store: FaultyStore, clock: FakeClock) -> None:
    put(store, "/prod/a/", "/prod/a/b/", "/prod/a/b/metadata", "/prodigy/c/", "/nixl/agents/d/", "/prod//e/")
    assert Directory(store, namespace="/prod", clock=clock).names() == ["a"]
    assert Directory(store, namespace="/prod/a", clock=clock).names() == ["b"]


def test_names_are_listed_without_values(
    store: FaultyStore, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, seen = store.list, []

    def keep(prefix: str, *, keys_only: bool = False, timeout: float | None) -> Snapshot:
        seen.append(listing(prefix, keys_only=keys_only, timeout=timeout))
        return seen[-1]

    put(store, "/prod/a/metadata", value=b"large")
    monkeypatch.setattr(store, "list", keep)
    assert directory.names() == ["a"]
    assert [entry.value for entry in seen[0].entries] == [b""]


def test_impossible_names_are_ignored(store: FaultyStore, directory: Directory) -> None:
    put(
        store, "/prod/.presence/", "/prod/.presence/.x", "/prod/.x/metadata", "/prod/a\n/", "/prod/\udc80/", "/prod/ok/"
    )
    put(store, "/prod/.presence/also-ok", "/prod/.chunks/b/0", "/prod/.catalog/c")
    assert directory.names() == ["also-ok", "ok"]


def test_presence_is_the_record_or_none(store: FaultyStore, clock: FakeClock) -> None:
    directory = Directory(store, clock=clock)
    nixl = Directory(store, namespace=NIXL_NAMESPACE, clock=clock)
    put(store, "/nixl/agents//real/")
    with directory.open_publisher("ours", incarnation=ONE), nixl.open_publisher("theirs", incarnation=TWO):
        for name, incarnation in (("ours", ONE), ("theirs", TWO)):
            presence = directory.presence(name)
            assert presence is not None
            assert presence.incarnation == incarnation
    assert [directory.presence(name) for name in ("ours", "real", "nobody")] == [None, None, None]
    put(store, "/nixl/agents/.presence/bad", value=b"\xff")
    with pytest.raises(MetadataDecodeError):
        directory.presence("bad")
    put(store, "/nixl/agents/.presence/newer", value=b'{"format":9,"min_reader":9}')
    newer = directory.presence("newer")
    assert newer is not None
    assert not newer.is_readable
    with pytest.raises(ConfigurationError):
        directory.presence("a/b")
