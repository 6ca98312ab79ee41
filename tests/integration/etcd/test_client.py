from __future__ import annotations

import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.integration.etcd.conftest import connect, next_change

from trunkline.errors import ClosedError, StoreLimitError, StoreRequestError
from trunkline.etcd import request
from trunkline.etcd.request import prefix_end
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from trunkline.etcd.client import EtcdClient
    from trunkline.testing.etcd import EtcdServer


def test_a_value_comes_back_with_its_revisions(client: EtcdClient, prefix: bytes) -> None:
    first = client.put(prefix + b"k", b"one", timeout=10)
    second = client.put(prefix + b"k", b"two", timeout=10)
    assert second == first + 1
    (entry,) = client.range(prefix + b"k", timeout=10).entries
    assert (entry.value, entry.create_revision, entry.mod_revision, entry.lease) == (b"two", first, second, 0)
    assert client.range(prefix + b"absent", timeout=10).entries == ()


def test_a_range_is_sorted_and_ends_at_the_prefix(client: EtcdClient, prefix: bytes) -> None:
    for name in (b"b", b"a", b"\xff\xfe"):
        client.put(prefix + name, name, timeout=10)
    client.put(prefix[:-1] + b"0", b"beyond", timeout=10)
    entries = client.range(prefix, prefix_end(prefix), timeout=10).entries
    assert [entry.value for entry in entries] == [b"a", b"b", b"\xff\xfe"]
    entries = client.range(prefix, prefix_end(prefix), keys_only=True, timeout=10).entries
    assert [entry.value for entry in entries] == [b"", b"", b""]


def test_transactions_take_the_branch_their_conditions_choose(client: EtcdClient, prefix: bytes) -> None:
    key = prefix + b"k"
    claim = [request.absent(key)], [request.put(key, b"mine")], [request.read(key)]
    won = client.transact(*claim, timeout=10)
    lost = client.transact(*claim, timeout=10)
    assert (won.succeeded, won.reads) == (True, ())
    assert not lost.succeeded
    assert lost.reads[0][0].value == b"mine"
    assert client.transact([request.revision_is(key, won.revision)], [request.delete(key)], timeout=10).succeeded
    assert not client.transact([request.lease_is(key, 5)], [], timeout=10).succeeded


def test_what_etcd_refuses(client: EtcdClient, prefix: bytes) -> None:
    with pytest.raises(StoreLimitError, match="too large"):
        client.put(prefix, b"v" * (1_572_864), timeout=10)
    with pytest.raises(StoreLimitError):
        client.put(prefix, b"v" * (3 << 20), timeout=10)
    with pytest.raises(StoreLimitError, match="too many operations"):
        client.transact([], [request.put(prefix + b"%d" % i, b"") for i in range(129)], timeout=10)
    with pytest.raises(StoreRequestError, match="duplicate key"):
        client.transact([], [request.put(prefix, b""), request.delete(prefix)], timeout=10)
    with pytest.raises(StoreRequestError, match="lease not found"):
        client.put(prefix, b"", lease=12345, timeout=10)


def test_answers_beyond_grpcs_default_limit(client: EtcdClient, prefix: bytes) -> None:
    for number in range(6):
        client.put(prefix + b"%d" % number, bytes(1 << 20), timeout=10)
    listing = client.range(prefix, prefix_end(prefix), timeout=30)
    assert sum(len(entry.value) for entry in listing.entries) == 6 << 20
    with client.watch(prefix, prefix_end(prefix), after=listing.revision - 6) as watch:
        changes = [next_change(watch) for _ in range(6)]
    assert [each.put[0] for each in changes] == list(listing.entries)


def test_leases(client: EtcdClient, prefix: bytes) -> None:
    lease = client.grant(20, timeout=10)
    assert lease.ttl == 20
    client.put(prefix, b"", lease=lease.id, timeout=10)
    left = client.time_to_live(lease.id, timeout=10)
    assert left is not None
    assert 0 < left <= 20
    lease.close()
    assert client.range(prefix, timeout=10).entries == ()
    assert client.time_to_live(lease.id, timeout=10) is None
    assert client.revoke(lease.id, timeout=10) is False


def test_a_lease_lives_as_long_as_it_is_kept_and_no_longer(client: EtcdClient, prefix: bytes) -> None:
    kept, orphan = client.grant(2, timeout=10), client.grant(2, timeout=10)
    client.put(prefix + b"kept", b"", lease=kept.id, timeout=10)
    client.put(prefix + b"orphan", b"", lease=orphan.id, timeout=10)
    orphan.orphan()
    with client.watch(prefix, prefix_end(prefix)) as watch:
        watch.next(10)
        assert next_change(watch).deleted == (prefix + b"orphan",)
    assert not kept.is_lost
    assert client.range(prefix + b"kept", timeout=10).entries
    kept.close()


def test_the_owner_learns_that_its_lease_was_revoked(client: EtcdClient, server: EtcdServer) -> None:
    lost = threading.Event()
    lease = client.grant(2, on_lost=lost.set, timeout=10)
    with connect(server.endpoint) as other:
        assert other.revoke(lease.id, timeout=10)
    assert lost.wait(30)
    assert lease.is_lost


def test_one_stream_refreshes_all_leases(server: EtcdServer) -> None:
    def count(name: str) -> float:
        """Read one of the server's counters for the method that refreshes leases."""
        with urllib.request.urlopen(f"http://127.0.0.1:{server._metrics_port}/metrics") as answer:
            text = answer.read().decode()
        lines = [each for each in text.splitlines() if each.startswith(name) and '"LeaseKeepAlive"' in each]
        return float(lines[0].split()[-1]) if lines else 0

    streams, messages = count("grpc_server_started_total"), count("grpc_server_msg_received_total")
    with connect(server.endpoint) as client:
        leases = [client.grant(2, timeout=10) for _ in range(20)]
        started_at = time.monotonic()
        eventually(lambda: all(lease.refreshed_at > started_at + 1 for lease in leases))
        assert count("grpc_server_started_total") - streams == 1
        assert count("grpc_server_msg_received_total") - messages >= 2 * len(leases)


def test_many_threads(client: EtcdClient, prefix: bytes) -> None:
    def put(number: int) -> int:
        return client.put(prefix + b"%d" % number, b"", timeout=30)

    with ThreadPoolExecutor(16) as pool:
        revisions = list(pool.map(put, range(200)))
    assert len(set(revisions)) == 200


def test_close_ends_threads_and_calls(server: EtcdServer, prefix: bytes) -> None:
    client = connect(server.endpoint)
    client.grant(20, timeout=10)
    watch = client.watch(prefix)
    assert watch.next(10) is not None
    names = {thread.name for thread in threading.enumerate()}
    assert {"trunkline-etcd-keepalive", "trunkline-etcd-watch"} <= names
    client.close()
    client.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("trunkline-etcd")]
    with pytest.raises(ClosedError):
        client.range(prefix, timeout=10)
    with pytest.raises(ClosedError):
        watch.next(None)
    with pytest.raises(ClosedError):
        client.watch(prefix)


def test_status(client: EtcdClient) -> None:
    status = client.status(timeout=10)
    assert status.version.startswith("3.")
    assert status.leader
