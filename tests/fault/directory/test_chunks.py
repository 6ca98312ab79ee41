"""Publications in chunks: the writer is killed midway, etcd goes away midway, history goes while they are read."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.fault.directory.chunked import INCARNATION, NAME, TTL, HookedStore, content

from trunkline.directory import Directory
from trunkline.errors import StoreUnavailableError
from trunkline.store import open_store
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fault.directory.fleet import Fleet

    from trunkline.store.contract import Store
    from trunkline.testing.etcd import EtcdServer

SCRIPT = Path(__file__).with_name("chunked.py")


@pytest.fixture
def store(fleet: Fleet) -> Iterator[Store]:
    with open_store(fleet.endpoint) as store:
        yield store


def keys(store: Store, fleet: Fleet) -> list[str]:
    return [entry.key for entry in store.list(f"{fleet.namespace}/", keys_only=True, timeout=30).entries]


def test_one_killed_midway_leaves_what_it_had_published_until_its_lease_ends_and_then_nothing(
    fleet: Fleet, store: Store
) -> None:
    directory = Directory(store, namespace=fleet.namespace)
    command = [sys.executable, str(SCRIPT), fleet.endpoint, fleet.namespace]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "published\n"
            assert process.stdout.readline() == "midway\n"
        finally:
            process.kill()
    entries = store.list(f"{fleet.namespace}/", keys_only=True, timeout=30).entries
    assert len([entry for entry in entries if "/.chunks/" in entry.key]) == 4 + 2
    assert len({entry.lease for entry in entries}) == 1
    assert 0 not in {entry.lease for entry in entries}
    assert directory.fetch(NAME, timeout=30).metadata == content(0)
    eventually(lambda: keys(store, fleet) == [])


def test_etcd_goes_away_midway_and_the_publication_is_made_up_for(fleet: Fleet, server: EtcdServer) -> None:
    def kill(what: str) -> None:
        if what == "put 2" and server.is_healthy():
            hooked.hook = lambda _: None
            server.kill()

    with HookedStore(open_store(fleet.endpoint), lambda _: None) as hooked:
        directory = Directory(hooked, namespace=fleet.namespace)
        with directory.open_publisher(NAME, incarnation=INCARNATION, ttl=TTL) as publisher:
            publisher.publish(content(0))
            hooked.hook = kill
            with pytest.raises(StoreUnavailableError):
                publisher.publish(content(1), timeout=0.5)
            server.start()
            eventually(lambda: directory.fetch(NAME, timeout=30).metadata == content(1))
            publisher.publish(content(2))
            assert len([key for key in keys(hooked, fleet) if "/.chunks/" in key]) == 4
            assert directory.fetch(NAME, timeout=30).metadata == content(2)
        assert keys(hooked, fleet) == []


def test_history_goes_in_the_midst_of_a_fetch(fleet: Fleet, store: Store) -> None:
    """What was there when the reader looked can't be read any more: it reads what there is instead."""
    with Directory(store, namespace=fleet.namespace).open_publisher(
        NAME, incarnation=INCARNATION, ttl=TTL
    ) as publisher:
        publisher.publish(content(0), catalog=content(7))
        updates = iter([(content(1), content(8)), (content(2), b"small")])

        def update(what: str) -> None:
            if what == "get 0" and (later := next(updates, None)) is not None:
                publisher.publish(later[0], catalog=later[1])
                fleet.compact()

        with HookedStore(open_store(fleet.endpoint), update) as reader:
            found = Directory(reader, namespace=fleet.namespace).fetch(NAME, timeout=30)
        assert found.metadata == content(2)
        assert found.catalog == b"small"
        # One that was published before history was compacted is read all the same.
        publisher.publish(content(3))
        publisher.update(attributes={"role": "decode"})
        fleet.compact()
        assert Directory(store, namespace=fleet.namespace).fetch(NAME, timeout=30).metadata == content(3)


def test_whoever_fetches_during_updates_gets_one_publication_whole(fleet: Fleet, store: Store) -> None:
    contents = [content(number) for number in range(3)]
    with (
        Directory(store, namespace=fleet.namespace).open_publisher(NAME, incarnation=INCARNATION, ttl=TTL) as publisher,
        ThreadPoolExecutor(1) as thread,
        open_store(fleet.endpoint.replace("127.0.0.1", "localhost")) as other,
    ):
        publisher.publish(contents[0])
        reader = Directory(other, namespace=fleet.namespace)
        updates = thread.submit(lambda: [publisher.publish(contents[number % 3]) for number in range(1, 12)])
        seen = 0
        while not updates.done():
            found = reader.fetch(NAME, timeout=30)
            assert found.presence is not None
            assert found.metadata == contents[(found.presence.labels["metadata"].generation - 1) % 3]
            seen += 1
        updates.result()
        assert seen
