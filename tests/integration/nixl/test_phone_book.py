"""A real NIXL agent and ours find each other in etcd."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trunkline import Agent, DescriptorList, MemoryKind
from trunkline.metadata.key import NIXL_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.nixl.conftest import Nixl

SCRIPT = Path(__file__).with_name("trunkline_process.py")
SIZE = 4096
NOISE = np.random.default_rng(7).integers(0, 256, 9 << 20, np.uint8)[:SIZE]
"""What the real agent's memory begins with once it is filled with seed 7."""


@pytest.fixture(scope="module", params=[True, False], ids=["namespace set", "namespace unset"])
def place(request: pytest.FixtureRequest) -> str:
    """Where the real agent looks; unset, that is below a double slash."""
    return f"/test/{uuid.uuid4().hex}" if request.param else NIXL_NAMESPACE


@pytest.fixture(scope="module")
def nixl(start_nixl: Callable[..., Nixl], etcd_endpoint: str, place: str) -> Nixl:
    environment = {} if place == NIXL_NAMESPACE else {"NIXL_ETCD_NAMESPACE": place}
    return start_nixl(NIXL_ETCD_ENDPOINTS=etcd_endpoint, **environment)


@pytest.fixture
def name() -> str:
    return f"ours-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def agent(name: str, etcd_endpoint: str, place: str) -> Iterator[Agent]:
    with Agent(name, store=etcd_endpoint, namespace=place, devices="lo", timeout=30) as agent:
        yield agent


def test_it_fetches_ours_and_forgets_it_when_withdrawn(agent: Agent, nixl: Nixl) -> None:
    memory = np.zeros(SIZE, np.uint8)
    agent.register(memory, name="kv")
    nixl.ask("fill", 7)
    rows = [[nixl.ask("address"), SIZE, 0], [memory.ctypes.data, SIZE, 0]]
    for _ in range(2):
        memory[:] = 0
        agent.publish()
        assert nixl.ask("fetch", agent.name)
        assert nixl.ask("transfer", "WRITE", rows[:1], rows[1:], agent.name, "") == "DONE"
        assert np.array_equal(memory, NOISE)
        agent.withdraw()
        assert nixl.ask("forgets", agent.name)


def test_we_fetch_what_it_published(
    nixl: Nixl, name: str, etcd_endpoint: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no namespace set, ours looks below the double slash too."""
    monkeypatch.delenv("NIXL_ETCD_NAMESPACE", raising=False)
    nixl.ask("publish")
    nixl.ask("fill", 7)
    own = None if place == NIXL_NAMESPACE else place
    memory = np.zeros(SIZE, np.uint8)
    with Agent(name, store=etcd_endpoint, namespace=own, devices="lo", timeout=30) as agent:
        agent.register(memory, name="kv")
        peer = agent.fetch(nixl.name)
        remote = DescriptorList.of(MemoryKind.DRAM, [(nixl.ask("address"), SIZE, 0)])
        local = DescriptorList.of(MemoryKind.DRAM, [(memory.ctypes.data, SIZE, 0)])
        agent.read(remote, into=local, peer=peer).wait()
    nixl.ask("withdraw")
    assert np.array_equal(memory, NOISE)


def test_it_notices_our_death_by_the_lease(nixl: Nixl, name: str, etcd_endpoint: str, place: str) -> None:
    arguments = [sys.executable, str(SCRIPT), name, etcd_endpoint, place, "2"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "published\n"
            assert nixl.ask("fetch", name)
        finally:
            process.kill()
    assert nixl.ask("forgets", name)
