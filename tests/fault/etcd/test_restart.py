"""etcd is killed, paused, cut off or emptied while clients use it."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING

import pytest
from tests.fault.etcd.conftest import PREFIX, Reader, connect, put_patiently

from trunkline.errors import StoreUnavailableError
from trunkline.etcd import request
from trunkline.etcd.server import free_port
from trunkline.etcd.value import Change, Interruption, Listing
from trunkline.testing.proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.etcd.client import EtcdClient
    from trunkline.etcd.value import Outcome
    from trunkline.testing.etcd import EtcdServer


@pytest.fixture
def client(server: EtcdServer) -> Iterator[EtcdClient]:
    with connect(server.endpoint) as connected:
        yield connected


@pytest.fixture
def writer(server: EtcdServer) -> Iterator[EtcdClient]:
    with connect(server.endpoint) as connected:
        yield connected


def test_no_event_is_lost_over_a_crash(server: EtcdServer, client: EtcdClient, writer: EtcdClient) -> None:
    lease = client.grant(2, timeout=10)
    client.put(PREFIX + b"leased", b"", lease=lease.id, timeout=10)
    with Reader(client) as reader:
        puts = threading.Thread(target=put_patiently, args=(writer, *range(30)))
        server.kill()
        puts.start()
        time.sleep(3)  # longer than the lease's TTL
        server.start()
        puts.join(60)
        reader.wait_for(lambda: reader.has_keys(range(30)))
        assert reader.count(Listing) == 1
        assert reader.count(Interruption) == 1
    assert not lease.is_lost  # a restarted etcd restores leases
    assert client.range(PREFIX + b"leased", timeout=10).entries


def test_the_end_of_an_outage_is_told_also_when_nothing_happened(server: EtcdServer, client: EtcdClient) -> None:
    put_patiently(client, 0)
    with Reader(client) as reader:
        server.kill()
        reader.wait_for_event(Interruption)
        server.start()
        reader.wait_for_event(Change)
        assert reader.events[-1] == Change((), (), client.range(PREFIX, timeout=10).revision)


def test_after_an_outage_a_watch_that_knows_of_no_key_lists_again(server: EtcdServer, client: EtcdClient) -> None:
    with Reader(client) as reader:
        server.kill()
        reader.wait_for_event(Interruption)
        server.start()
        reader.wait_for_event(Listing)
        put_patiently(client, 0)
        reader.wait_for(lambda: reader.has_keys(range(1)))


def test_a_paused_etcd_times_out_and_loses_its_leases(server: EtcdServer, client: EtcdClient) -> None:
    lost = threading.Event()
    lease = client.grant(2, on_lost=lost.set, timeout=10)
    client.put(PREFIX + b"leased", b"", lease=lease.id, timeout=10)
    with Reader(client) as reader:
        server.pause()
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="get '/fault/' failed after"):
            client.range(PREFIX, timeout=3)
        assert time.monotonic() - began < 30
        server.resume()
        assert lost.wait(60)
        reader.wait_for(lambda: any(isinstance(event, Change) and event.deleted for event in reader.events))
    assert lease.is_lost


def test_an_emptied_etcd_is_listed_again(server: EtcdServer, client: EtcdClient, writer: EtcdClient) -> None:
    for number in range(5):
        put_patiently(client, number)
    lost = threading.Event()
    client.grant(2, on_lost=lost.set, timeout=10)
    with Reader(client) as reader:
        server.kill()
        shutil.rmtree(server.directory / "data")
        server.start()
        reader.wait_for(lambda: reader.count(Listing) == 2)
        emptied = reader.events[-1]
        assert isinstance(emptied, Listing)
        assert emptied.entries == ()
        put_patiently(writer, 77)
        reader.wait_for(lambda: reader.has_keys(range(77, 78)))
        assert lost.wait(60)


def test_an_emptied_etcd_whose_revision_has_passed_the_watch_is_listed_again(
    server: EtcdServer, writer: EtcdClient
) -> None:
    for number in range(3):
        put_patiently(writer, number)
    with TcpProxy(server.port) as proxy, connect(proxy.endpoint) as client, Reader(client) as reader:
        put_patiently(writer, 3)
        reader.wait_for(lambda: reader.has_keys(range(4)))
        before = writer.range(PREFIX, timeout=10)
        proxy.cut()
        reader.wait_for_event(Interruption)
        server.kill()
        shutil.rmtree(server.directory / "data")
        server.start()
        while (now := writer.range(PREFIX, timeout=10)).revision <= before.revision:
            put_patiently(writer, 77)
        assert now.cluster == before.cluster
        proxy.mend()
        reader.wait_for_event(Listing)
        listed = reader.events[-1]
        assert isinstance(listed, Listing)
        assert [entry.key for entry in listed.entries] == [PREFIX + b"77"]
        put_patiently(writer, 78)
        reader.wait_for(lambda: reader.has_keys(range(77, 79)))


def test_a_compaction_while_cut_off(server: EtcdServer, writer: EtcdClient) -> None:
    with TcpProxy(server.port) as proxy, connect(proxy.endpoint) as client, Reader(client) as reader:
        put_patiently(writer, 0)
        reader.wait_for(lambda: reader.has_keys(range(1)))
        proxy.cut()
        for number in range(1, 10):
            put_patiently(writer, number)
        writer.compact(writer.range(PREFIX, timeout=10).revision, timeout=10)
        put_patiently(writer, 10)
        reader.wait_for_event(Interruption)
        proxy.mend()
        reader.wait_for(lambda: reader.has_keys(range(11)))
        assert reader.count(Listing) == 2
        put_patiently(writer, 11)
        reader.wait_for(lambda: reader.has_keys(range(12)))
        assert reader.count(Listing) == 2


def test_a_claim_whose_answer_was_lost_is_repeated_and_finds_itself(server: EtcdServer, writer: EtcdClient) -> None:
    key = PREFIX + b"claim"
    outcomes: list[Outcome] = []
    with TcpProxy(server.port) as proxy, connect(proxy.endpoint) as client:
        client.status(timeout=10)
        proxy.mute()

        def claim() -> None:
            mine = request.put(key, b"mine")
            outcomes.append(client.transact([request.absent(key)], [mine], [request.read(key)], timeout=60))

        claiming = threading.Thread(target=claim)
        claiming.start()
        with writer.watch(key, after=0) as watch:
            assert isinstance(watch.next(30), Change)  # it was carried out
        proxy.cut()
        proxy.mend()
        claiming.join(60)
    assert not outcomes[0].succeeded
    assert outcomes[0].reads[0][0].value == b"mine"


def test_what_has_no_condition_is_not_repeated(server: EtcdServer, writer: EtcdClient) -> None:
    key = PREFIX + b"counted"
    with TcpProxy(server.port) as proxy, connect(proxy.endpoint) as client:
        client.status(timeout=10)
        proxy.mute()
        with pytest.raises(StoreUnavailableError, match="whether it was carried out is not known"):
            client.transact([], [request.put(key, b"")], timeout=1)
        proxy.cut()
        proxy.mend()
        client.status(timeout=10)
        (entry,) = writer.range(key, timeout=10).entries
        assert entry.create_revision == entry.mod_revision


def test_nobody_there_at_the_start() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with connect(url) as client:
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="is etcd running") as caught:
            client.range(PREFIX, timeout=1.5)
        assert time.monotonic() - began < 20
        assert caught.value.context["operation"] == "get"
        with client.watch(PREFIX) as watch:
            assert isinstance(watch.next(60), Interruption)


def test_a_server_that_comes_later(server: EtcdServer) -> None:
    server.kill()
    with connect(server.endpoint) as client, client.watch(PREFIX) as watch:
        assert isinstance(watch.next(60), Interruption)
        server.start()
        assert isinstance(watch.next(60), Listing)
        assert client.put(PREFIX, b"", timeout=None)


@pytest.mark.soak
def test_crash_after_crash(server: EtcdServer, client: EtcdClient, writer: EtcdClient) -> None:
    put_patiently(writer, 0)  # what a watch has seen shows it that history goes on
    with Reader(client) as reader:
        for number in range(20):
            puts = threading.Thread(target=put_patiently, args=(writer, *range(30 * number, 30 * number + 30)))
            puts.start()
            server.kill()
            time.sleep(0.3 * (number % 5))
            server.start()
            puts.join(120)
        reader.wait_for(lambda: reader.has_keys(range(600)))
        assert reader.count(Listing) == 1
