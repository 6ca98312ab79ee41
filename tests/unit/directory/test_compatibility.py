"""Readers and writers of different formats in one directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trunkline.directory import fetch as fetch_module
from trunkline.directory.chunks import MAX_TRANSACTION_SIZE
from trunkline.directory.event import PeerJoined
from trunkline.errors import MetadataError
from trunkline.metadata import presence as presence_module
from trunkline.store.contract import Put, Transaction

if TYPE_CHECKING:
    from trunkline.directory import Directory, DirectoryWatch
    from trunkline.testing.faulty_store import FaultyStore

GOLDEN = Path(__file__).parents[2] / "data" / "golden"


def put(store: FaultyStore, key: str, value: bytes) -> None:
    store.transact(Transaction((), (Put(key, value),)), timeout=1)


def listed(watch: DirectoryWatch, count: int) -> dict[str, bool]:
    """Return whether the next agents that join can be read."""
    agents: dict[str, bool] = {}
    while len(agents) < count:
        event = watch.next(30)
        assert event is not None, f"only {agents}"
        if isinstance(event, PeerJoined):
            agents[event.name] = event.agent.is_readable
    return agents


def test_an_older_reader_uses_all_but_those_in_chunks_and_lists_these(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (presence_module, fetch_module):
        monkeypatch.setattr(module, "FORMAT", 1)
    small = directory.open_publisher("small", incarnation="1" * 32, attributes={"role": "prefill"})
    large = directory.open_publisher("large", incarnation="2" * 32)
    small.publish(b"metadata", catalog=b"catalog")
    large.publish(bytes(MAX_TRANSACTION_SIZE + 1))
    with directory.watch() as watch:
        assert listed(watch, 2) == {"small": True, "large": False}
        assert directory.fetch("small", timeout=0).metadata == b"metadata"
        with pytest.raises(MetadataError, match="format 2, this is 1: a newer Trunkline"):
            directory.fetch("large", timeout=0)
        large.publish(b"metadata")
        assert listed(watch, 1) == {"large": True}
    assert directory.fetch("large", timeout=0).metadata == b"metadata"


def test_a_newer_writer_is_read_if_it_says_that_it_can_be_and_listed_if_not(
    store: FaultyStore, directory: Directory
) -> None:
    put(store, "/prod/readable/metadata", b"hello")
    put(store, "/prod/.presence/readable", (GOLDEN / "presence-3-readable.json").read_bytes())
    put(store, "/prod/unreadable/metadata", b"hello")
    put(store, "/prod/.presence/unreadable", (GOLDEN / "presence-3-unreadable.json").read_bytes())
    assert directory.fetch("readable", timeout=0).metadata == b"hello"
    with pytest.raises(MetadataError, match="format 3, this is 2: a newer Trunkline"):
        directory.fetch("unreadable", timeout=0)
    with directory.watch() as watch:
        assert listed(watch, 2) == {"readable": True, "unreadable": False}
