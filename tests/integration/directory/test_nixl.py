"""Beside real NIXL agents on one etcd."""

from __future__ import annotations

import importlib.util
import os
import uuid
from typing import TYPE_CHECKING, TypeAlias

import pytest
from tests.integration.directory.conftest import Child

from trunkline.directory import Directory
from trunkline.metadata.key import DEFAULT_NAMESPACE, NIXL_NAMESPACE
from trunkline.store.contract import Changed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trunkline.store.contract import Store

    Start: TypeAlias = Callable[..., Child]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("nixl_cu12") is None, reason="nixl-cu12 is not installed")

ONE, TWO = "1" * 32, "2" * 32
NAME = "agent-1"
UCX = {"UCX_TLS": "tcp", "UCX_NET_DEVICES": "lo"}


@pytest.fixture(scope="module")
def blob(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file with metadata of a NIXL agent called NAME, which lives: NIXL connects to what it loads."""
    child = Child("nixl_peer.py", NAME, environment=without_nixl() | UCX)
    try:
        assert child.read() == "open"
        path = tmp_path_factory.mktemp("nixl") / "metadata.bin"
        path.write_bytes(bytes.fromhex(child.ask("metadata")))
        yield path
    finally:
        child.close()


def without_nixl() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("NIXL_")}


@pytest.fixture(params=[True, False], ids=["namespace set", "namespace unset"])
def place(request: pytest.FixtureRequest, namespace: str) -> str:
    """The namespace in which NIXL looks."""
    return namespace if request.param else NIXL_NAMESPACE


@pytest.fixture
def name() -> str:
    """What the NIXL agent is called."""
    return f"nixl-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def nixl(start: Start, etcd_endpoint: str, place: str, name: str) -> Child:
    environment = without_nixl() | UCX | {"NIXL_ETCD_ENDPOINTS": etcd_endpoint}
    if place != NIXL_NAMESPACE:
        environment["NIXL_ETCD_NAMESPACE"] = place
    child = start("nixl_peer.py", name, environment=environment)
    assert child.read() == "open"
    return child


def test_its_publication_is_fetched(nixl: Child, store: Store, place: str, name: str) -> None:
    namespace = DEFAULT_NAMESPACE if place == NIXL_NAMESPACE else place
    directory = Directory(store, namespace=namespace)
    assert nixl.ask("publish") == "done"
    found = directory.fetch(name, timeout=10)
    assert found.metadata.hex() == nixl.ask("metadata")
    assert found.presence is None
    assert nixl.ask("withdraw") == "done"
    for key in (f"{place}/{name}/metadata", f"{place}/{name}/"):
        with store.watch(key) as watch:
            while True:
                event = watch.next(20)
                assert event is not None
                if event.deleted if isinstance(event, Changed) else not getattr(event, "entries", ()):
                    break


def test_it_fetches_ours_and_forgets_it_when_withdrawn(nixl: Child, store: Store, place: str, blob: Path) -> None:
    with Directory(store, namespace=place).open_publisher(NAME, incarnation=ONE) as session:
        for _ in range(3):
            session.publish(blob.read_bytes())
            assert nixl.ask(f"fetch {NAME}") == "True"
            session.withdraw()
            assert nixl.ask(f"gone {NAME}") == "True"


def test_it_forgets_ours_when_the_process_dies(
    nixl: Child, place: str, blob: Path, etcd_endpoint: str, start: Start
) -> None:
    for incarnation in (ONE, TWO):
        child = start("publisher.py", etcd_endpoint, place, NAME, incarnation, "2", environment=dict(os.environ))
        assert child.read() == "open"
        assert child.ask(f"publish {blob}") == "done"
        assert nixl.ask(f"fetch {NAME}") == "True"
        child.kill()
        assert nixl.ask(f"gone {NAME}") == "True"


def test_it_forgets_ours_when_it_is_taken_over_and_loads_the_successor(
    nixl: Child, store: Store, place: str, blob: Path
) -> None:
    directory = Directory(store, namespace=place)
    with directory.open_publisher(NAME, incarnation=ONE) as first:
        first.publish(blob.read_bytes())
        assert nixl.ask(f"fetch {NAME}") == "True"
        with directory.open_publisher(NAME, incarnation=TWO, takeover=True) as second:
            assert nixl.ask(f"gone {NAME}") == "True"
            second.publish(blob.read_bytes())
            assert nixl.ask(f"fetch {NAME}") == "True"


def test_what_a_killed_nixl_agent_left_is_cleared_by_a_claim(nixl: Child, store: Store, place: str, name: str) -> None:
    directory = Directory(store, namespace=place)
    assert nixl.ask("publish") == "done"
    nixl.kill()
    with directory.open_publisher(name, incarnation=ONE, timeout=10) as session:
        session.publish(b"ours")
        assert directory.fetch(name, timeout=5).metadata == b"ours"
    assert name not in directory.names()
