from __future__ import annotations

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from trunkline.directory import Directory
from trunkline.errors import (
    AgentNameInUseError,
    AgentNotFoundError,
    StoreUnavailableError,
    SupersededError,
)
from trunkline.store import open_store
from trunkline.testing.faulty_store import Fault, FaultyStore
from trunkline.testing.proxy import TcpProxy
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.directory.conftest import Child

    from trunkline.store.contract import Store

    Start: TypeAlias = Callable[..., Child]

ONE, TWO = "1" * 32, "2" * 32
BLOB = Path(__file__).parents[2] / "data" / "nixl-blobs" / "metadata-1-regions.bin"


def publisher(start: Start, endpoint: str, namespace: str, *, incarnation: str = ONE, ttl: float = 30) -> Child:
    return start("publisher.py", endpoint, namespace, "a", incarnation, str(ttl), environment=dict(os.environ))


def test_who_waits_fetches_what_another_publishes(directory: Directory, etcd_endpoint: str) -> None:
    metadata, catalog = os.urandom(1_000_000), os.urandom(400_000)
    with open_store(etcd_endpoint) as other, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(Directory(other, namespace=directory.namespace).fetch, "a", timeout=30)
        with directory.open_publisher("a", incarnation=ONE) as session:
            revision = session.publish(metadata, catalog=catalog)
            found = waiting.result(30)
            assert (found.metadata, found.catalog, found.revision) == (metadata, catalog, revision)
            assert directory.names() == ["a"]
            session.withdraw()
            with pytest.raises(AgentNotFoundError):
                directory.fetch("a", timeout=0.2)
            session.publish(b"again")
            assert directory.fetch("a", timeout=5).metadata == b"again"
    assert directory.names() == []


def test_many_are_fetched_and_those_that_are_not_there_yet_are_waited_for(
    directory: Directory, etcd_endpoint: str
) -> None:
    names = [f"a{number}" for number in range(100)]
    with contextlib.ExitStack() as opened, ThreadPoolExecutor(1) as threads:
        sessions = [
            opened.enter_context(directory.open_publisher(name, incarnation=f"{number:032x}"))
            for number, name in enumerate(names)
        ]
        late = sessions[::10]
        for session in sessions:
            if session not in late:
                session.publish(session.name.encode(), catalog=b"c")
        other = opened.enter_context(open_store(etcd_endpoint))
        fetching = Directory(other, namespace=directory.namespace).fetch_many(names, timeout=60)
        assert len([next(fetching) for _ in range(90)]) == 90
        rest = threads.submit(list, fetching)
        for session in reversed(late):
            session.publish(session.name.encode())
        found = rest.result(60)
        assert [(each.name, each.metadata) for each in found] == [(each.name, each.name.encode()) for each in late]


def test_one_of_many_processes_gets_the_name(
    directory: Directory, etcd_endpoint: str, namespace: str, start: Start
) -> None:
    children = [publisher(start, etcd_endpoint, namespace, incarnation=f"{number:032x}") for number in range(4)]
    assert sorted(child.read() for child in children) == ["AgentNameInUseError"] * 3 + ["open"]


def test_the_name_of_a_killed_process_is_free_at_once(
    directory: Directory, etcd_endpoint: str, namespace: str, start: Start
) -> None:
    child = publisher(start, etcd_endpoint, namespace, ttl=600)
    assert child.read() == "open"
    assert child.ask(f"publish {BLOB}") == "done"
    with pytest.raises(AgentNameInUseError, match=f"pid {child.pid} "):
        directory.open_publisher("a", incarnation=TWO, timeout=0.5)
    child.kill()
    with directory.open_publisher("a", incarnation=TWO, timeout=10) as session:
        with pytest.raises(AgentNotFoundError):
            directory.fetch("a", timeout=0.2)
        session.publish(b"2")
        assert directory.fetch("a", timeout=5, except_incarnations=[ONE]).metadata == b"2"


def test_a_stopped_process_loses_its_name_to_who_waits_and_finds_out(
    directory: Directory, etcd_endpoint: str, namespace: str, start: Start
) -> None:
    child = publisher(start, etcd_endpoint, namespace, ttl=2)
    assert child.read() == "open"
    child.send_signal(signal.SIGSTOP)
    with directory.open_publisher("a", incarnation=TWO, timeout=30):
        child.send_signal(signal.SIGCONT)
        assert child.ask(f"publish {BLOB}") == "SupersededError"
    assert child.ask(f"publish {BLOB}") == "SupersededError"  # for good, though the name is free again


def test_a_stopped_process_that_nobody_replaces_comes_back(
    directory: Directory, etcd_endpoint: str, namespace: str, start: Start
) -> None:
    child = publisher(start, etcd_endpoint, namespace, ttl=2)
    assert child.read() == "open"
    assert child.ask(f"publish {BLOB}") == "done"
    child.send_signal(signal.SIGSTOP)
    with directory._store.watch(f"{namespace}/a/") as watch:
        for event in watch:
            if not getattr(event, "entries", ()):
                break
    child.send_signal(signal.SIGCONT)
    found = directory.fetch("a", timeout=30)
    assert found.metadata == BLOB.read_bytes()
    assert found.presence is not None
    assert found.presence.incarnation == ONE
    assert child.ask(f"publish {BLOB}") == "done"


def test_takeover_replaces_a_live_agent_and_tells_it(directory: Directory) -> None:
    with directory.open_publisher("a", incarnation=ONE, ttl=2) as first:
        first.publish(b"1")
        with directory.open_publisher("a", incarnation=TWO, takeover=True) as second:
            with pytest.raises(SupersededError):
                first.publish(b"1")
            assert first.lost is not None
            second.publish(b"2")
            assert directory.fetch("a").metadata == b"2"
        with pytest.raises(SupersededError):
            first.publish(b"1")


def test_claims_and_publications_whose_answers_were_lost_count_once(store: Store, namespace: str) -> None:
    faulty = FaultyStore(store)
    directory = Directory(faulty, namespace=namespace)
    faulty.faults.extend([Fault.REPEATED, Fault.REPEATED, Fault.REPEATED])
    with directory.open_publisher("a", incarnation=ONE, timeout=5) as session:
        session.publish(b"1", catalog=b"c")
        session.withdraw()
        session.publish(b"2")
        found = directory.fetch("a", timeout=5)
        assert found.presence is not None
        assert found.presence.labels["metadata"].generation == 2


def test_a_fetch_outlives_an_outage(directory: Directory, etcd_endpoint: str) -> None:
    port = int(etcd_endpoint.rpartition(":")[2])
    with (
        TcpProxy(port) as proxy,
        FaultyStore(open_store(proxy.endpoint)) as store,
        ThreadPoolExecutor(2) as threads,
        directory.open_publisher("a", incarnation=ONE) as session,
    ):
        behind = Directory(store, namespace=directory.namespace)
        patient = threads.submit(behind.fetch, "a", timeout=60)
        impatient = threads.submit(behind.fetch, "b", timeout=4)
        eventually(lambda: len(store.watched) == 2 * 3)  # both have looked, and wait
        proxy.cut()
        session.publish(b"1")
        with pytest.raises(AgentNotFoundError, match="unreachable"):
            impatient.result(60)
        proxy.mend()
        assert patient.result(60).metadata == b"1"


def test_a_fetch_may_begin_in_an_outage(directory: Directory, etcd_endpoint: str) -> None:
    port = int(etcd_endpoint.rpartition(":")[2])
    with (
        TcpProxy(port) as proxy,
        open_store(proxy.endpoint) as store,
        ThreadPoolExecutor(1) as threads,
        directory.open_publisher("a", incarnation=ONE) as session,
    ):
        session.publish(b"1")
        behind = Directory(store, namespace=directory.namespace)
        assert behind.presence("a", timeout=10) is not None
        proxy.cut()
        with pytest.raises(StoreUnavailableError):
            behind.fetch("a", timeout=1)
        fetching = threads.submit(behind.fetch, "a", timeout=60)
        with pytest.raises(StoreUnavailableError):
            behind.names(timeout=1)
        proxy.mend()
        assert fetching.result(60).metadata == b"1"
