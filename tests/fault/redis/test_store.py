"""Redis is killed, emptied, cut off and silent under a store: what is lost, what is noticed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import redis

from trunkline.errors import StoreRequestError, StoreUnavailableError
from trunkline.store import open_store
from trunkline.store.contract import Changed, Get, Interrupted, KeyHasRevision, KeyIsAbsent, Put, Snapshot, Transaction
from trunkline.store.plugins.redis import watch as watch_module
from trunkline.testing.proxy import TcpProxy
from trunkline.testing.store_liveness import WAIT, next_change, next_snapshot, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trunkline.store.contract import Store
    from trunkline.testing.redis import RedisServer


@pytest.fixture
def store(server: RedisServer) -> Iterator[Store]:
    with open_store(server.url) as store:
        yield store


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[TcpProxy]:
    with TcpProxy(server.port) as proxy:
        yield proxy


def behind(proxy: TcpProxy) -> str:
    """Return the URL of a Redis behind a proxy."""
    return f"redis://127.0.0.1:{proxy.port}"


def test_a_put_that_was_acknowledged_is_lost_with_a_server_that_crashes(server: RedisServer, store: Store) -> None:
    """The reason why Redis is the weaker store. It is noticed: no revision is given twice."""
    lost = put(store, "a", b"1")
    lease = store.grant(60, timeout=WAIT)
    with store.watch("", prefix=True) as watch:
        assert len(next_snapshot(watch).entries) == 1
        server.kill()
        assert isinstance(watch.next(WAIT), Interrupted)
        server.start()
        snapshot = next_snapshot(watch)
        assert snapshot.entries == ()
        assert snapshot.revision > lost
    entry, _ = store.get("a", timeout=WAIT)
    assert entry is None
    assert store.time_to_live(lease.id, timeout=WAIT) is None
    assert put(store, "a", b"2") > lost
    stale = Transaction((KeyHasRevision("a", lost),), (Put("a", b"3"),))
    assert not store.transact(stale, timeout=WAIT).succeeded


def test_with_an_append_only_file_written_at_once_all_survives_and_leases_begin_anew(
    start_server: Callable[..., RedisServer],
) -> None:
    """Nobody could refresh them while the server was away, so that none has run out."""
    server = start_server("--appendonly", "yes", "--appendfsync", "always")
    with open_store(server.url) as store:
        lease = store.grant(60, timeout=WAIT)
        put(store, "a", b"1", lease.id)
        with redis.Redis(port=server.port) as client:
            client.zadd("trunkline:leases", {f"{lease.id:016x}": 1})  # as if it had run out meanwhile
        server.kill()
        server.start()
        entry, _ = store.get("a", timeout=WAIT)
        assert entry is not None
        assert (entry.value, entry.lease) == (b"1", lease.id)
        left = store.time_to_live(lease.id, timeout=WAIT)
        assert left is not None
        assert 30 < left <= 60


def test_an_outage_is_told_and_a_watch_goes_on_after_it(store: Store, proxy: TcpProxy) -> None:
    with open_store(behind(proxy)) as cut_off, cut_off.watch("", prefix=True) as watch:
        next_snapshot(watch)
        proxy.cut()
        assert isinstance(watch.next(WAIT), Interrupted)
        with pytest.raises(StoreUnavailableError):
            cut_off.get("a", timeout=0.3)
        revision = put(store, "a")
        proxy.mend()
        assert next_change(watch).revision == revision
        proxy.cut()
        assert isinstance(watch.next(WAIT), Interrupted)
        proxy.mend()
        assert watch.next(WAIT) == Changed((), (), revision)  # nothing happened


def test_a_server_that_does_not_answer_is_told_in_time(
    proxy: TcpProxy, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "ATTEMPT_TIMEOUT", 0.3)
    with open_store(behind(proxy)) as cut_off, cut_off.watch("", prefix=True) as watch:
        next_snapshot(watch)
        proxy.mute()
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            cut_off.transact(Transaction((), (Put("a", b""),)), timeout=0.5)
        assert time.monotonic() - began < 5
        assert isinstance(watch.next(WAIT), Interrupted)


def test_what_may_have_been_carried_out_is_not_sent_again_unless_a_condition_makes_that_safe(
    proxy: TcpProxy, store: Store
) -> None:
    guarded = Transaction((KeyIsAbsent("guarded"),), (Put("guarded", b""),), (Get("guarded"),))
    with open_store(behind(proxy)) as cut_off, ThreadPoolExecutor(2) as threads:
        for transaction, key in ((Transaction((), (Put("bare", b""),)), "bare"), (guarded, "guarded")):
            cut_off.get(key, timeout=WAIT)
            proxy.mute()
            answer = threads.submit(cut_off.transact, transaction, timeout=WAIT)
            while (entry := store.get(key, timeout=WAIT)[0]) is None:
                pass
            proxy.cut()
            proxy.mend()
            if transaction is guarded:
                assert not answer.result(WAIT).succeeded  # it found its own effect
            else:
                assert isinstance(answer.exception(WAIT), StoreUnavailableError)
            assert store.get(key, timeout=WAIT)[0] == entry


def test_a_reader_for_which_the_changes_were_dropped_gets_a_snapshot(store: Store) -> None:
    """64 MiB of changes are kept: what is older is not there for a watch that begins there."""
    first = put(store, "a", b"1")
    for _ in range(50):
        last = put(store, "large", bytes(1_400_000))
    with store.watch("a", after=first) as watch:
        snapshot = next_snapshot(watch)
        assert [entry.value for entry in snapshot.entries] == [b"1"]
    with store.watch("large", after=last - 2) as watch:
        assert [next_change(watch).revision for _ in range(2)] == [last - 1, last]


def test_a_server_that_was_emptied_is_noticed(server: RedisServer, store: Store) -> None:
    before = put(store, "a")
    with store.watch("", prefix=True) as watch:
        next_snapshot(watch)
        with redis.Redis(port=server.port) as client:
            client.flushall()
        snapshot = next_snapshot(watch)
        assert snapshot.entries == ()
        assert snapshot.revision > before


def test_foreign_data_under_our_keys_is_refused_and_watches_wait(server: RedisServer, store: Store) -> None:
    put(store, "a", b"1")
    with redis.Redis(port=server.port) as client:
        mine = client.hget("trunkline:entries", "a")
        client.hset("trunkline:entries", "a", "of somebody else")
        with pytest.raises(StoreRequestError, match="keys that begin with trunkline:"):
            store.get("a", timeout=WAIT)
        with store.watch("a") as watch:
            assert isinstance(watch.next(WAIT), Interrupted)
            client.hset("trunkline:entries", "a", mine)
            assert isinstance(watch.next(WAIT), Snapshot)


def test_a_cluster_is_refused(start_server: Callable[..., RedisServer]) -> None:
    words = "runs as cluster: Redis Cluster and Sentinel are not supported"
    with (
        open_store(start_server("--cluster-enabled", "yes").url) as store,
        pytest.raises(StoreRequestError, match=words),
    ):
        store.get("a", timeout=WAIT)


def test_a_replica_is_named_as_such(server: RedisServer, start_server: Callable[..., RedisServer]) -> None:
    replica = start_server("--replicaof", "127.0.0.1", str(server.port))
    with open_store(replica.url) as store, pytest.raises(StoreUnavailableError, match="name the primary"):
        store.get("a", timeout=0.3)


def test_a_server_without_memory_refuses_whole_transactions(start_server: Callable[..., RedisServer]) -> None:
    server = start_server("--maxmemory", "10mb")
    with open_store(server.url) as store:
        for number in range(20):
            both = (Put(f"a{number}", bytes(700_000)), Put(f"b{number}", bytes(700_000)))
            try:
                store.transact(Transaction((), both), timeout=WAIT)
            except StoreRequestError as error:
                assert "keep the policy noeviction" in str(error)  # noqa: PT017 - one of many
                break
        else:
            pytest.fail("28 MB found room in 10 MB")
        with redis.Redis(port=server.port) as client:
            client.config_set("maxmemory", 0)
        names = {entry.key for entry in store.list("", keys_only=True, timeout=WAIT).entries}
        assert names == {f"{letter}{each}" for letter in "ab" for each in range(number)}
