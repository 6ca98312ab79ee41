from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from tests.integration.etcd.conftest import connect, next_change

from trunkline.errors import ClosedError
from trunkline.etcd import request
from trunkline.etcd.request import prefix_end
from trunkline.etcd.value import Listing

if TYPE_CHECKING:
    from trunkline.etcd.client import EtcdClient
    from trunkline.etcd.value import WatchEvent
    from trunkline.testing.etcd import EtcdServer


def test_an_empty_listing_comes_first(client: EtcdClient, prefix: bytes) -> None:
    with client.watch(prefix, prefix_end(prefix)) as watch:
        event = watch.next(30)
        assert isinstance(event, Listing)
        assert event.entries == ()
        revision = client.put(prefix + b"k", b"v", timeout=10)
        assert next_change(watch).revision == revision
        assert watch.next(0.05) is None


def test_changes_after_a_revision_come_in_order_one_per_revision(client: EtcdClient, prefix: bytes) -> None:
    revision = client.put(prefix + b"0", b"", timeout=10)
    client.put(prefix + b"1", b"", timeout=10)
    client.transact([], [request.put(prefix + b"2", b""), request.delete(prefix + b"0")], timeout=10)
    client.put(prefix + b"0", b"again", timeout=10)
    with client.watch(prefix, prefix_end(prefix), after=revision) as watch:
        changes = [next_change(watch) for _ in range(3)]
    assert [each.revision - revision for each in changes] == [1, 2, 3]
    assert [[entry.key for entry in each.put] for each in changes] == [
        [prefix + b"1"],
        [prefix + b"2"],
        [prefix + b"0"],
    ]
    assert [each.deleted for each in changes] == [(), (prefix + b"0",), ()]


def test_a_single_key_is_not_a_prefix(client: EtcdClient, prefix: bytes) -> None:
    with client.watch(prefix + b"k") as watch:
        watch.next(30)
        client.put(prefix + b"kk", b"", timeout=10)
        revision = client.put(prefix + b"k", b"", timeout=10)
        assert next_change(watch).revision == revision


def test_many_watches_share_one_stream(client: EtcdClient, prefix: bytes) -> None:
    watches = [client.watch(prefix + b"%d/" % i, prefix_end(prefix + b"%d/" % i)) for i in range(50)]
    for watch in watches:
        assert isinstance(watch.next(30), Listing)
    for number, watch in enumerate(watches):
        client.put(prefix + b"%d/k" % number, b"", timeout=10)
        assert next_change(watch).put[0].key == prefix + b"%d/k" % number
    for watch in watches[1:]:
        watch.close()
    client.put(prefix + b"0/k", b"", timeout=10)
    next_change(watches[0])
    assert [thread.name for thread in threading.enumerate()].count("trunkline-etcd-watch") == 1
    watches[0].close()


def test_a_compacted_revision_gives_a_listing(client: EtcdClient, prefix: bytes) -> None:
    revision = client.put(prefix + b"k", b"old", timeout=10)
    for _ in range(5):
        latest = client.put(prefix + b"k", b"new", timeout=10)
    client.compact(latest, timeout=10)
    with client.watch(prefix, prefix_end(prefix), after=revision) as watch:
        event = watch.next(30)
        assert isinstance(event, Listing)
        assert event.entries[0].value == b"new"
        client.put(prefix + b"k", b"newer", timeout=10)
        assert next_change(watch).put[0].value == b"newer"


def test_a_transaction_too_large_for_one_message_comes_whole(client: EtcdClient, prefix: bytes) -> None:
    # The server sends responses above its request limit (1.5 MiB) in fragments.
    revision = client.put(prefix, b"", timeout=10)
    for number in range(4):
        client.put(prefix + b"%d" % number, bytes(1_500_000), timeout=10)
    with client.watch(prefix, prefix_end(prefix), after=revision) as watch:
        assert [next_change(watch).revision - revision for _ in range(4)] == [1, 2, 3, 4]


def test_an_absent_reader_gets_a_listing(client: EtcdClient, prefix: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = client.watch(prefix, prefix_end(prefix))
    assert isinstance(watch.next(30), Listing)
    monkeypatch.setattr(watch, "_queue_limit", 10_000)
    for number in range(100):
        client.put(prefix + b"%d" % number, b"v" * 200, timeout=10)
    seen: list[WatchEvent] = []
    while not (seen and isinstance(seen[-1], Listing)):
        event = watch.next(30)
        assert event is not None
        seen.append(event)
    assert len(seen) <= 10_000 // 200
    assert isinstance(seen[-1], Listing)
    client.put(prefix + b"z", b"", timeout=10)
    known = {entry.key for entry in seen[-1].entries}
    while prefix + b"z" not in known:
        known |= {entry.key for entry in next_change(watch).put}
    assert len(known) == 101
    watch.close()


def test_close_wakes_a_reader(server: EtcdServer, prefix: bytes) -> None:
    with connect(server.endpoint) as client:
        watch = client.watch(prefix)
        watch.next(30)
        done = threading.Event()

        def read() -> None:
            with pytest.raises(ClosedError):
                watch.next(None)
            done.set()

        thread = threading.Thread(target=read)
        thread.start()
        watch.close()
        assert done.wait(30)
        thread.join()
