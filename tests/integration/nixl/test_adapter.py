"""Real NIXL agents behind our phone book: alone, beside plain ones, and beside Trunkline's."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest
from tests.integration.nixl.nixl_process import SIZE, noise

from trunkline import Agent, DescriptorList, Directory, MemoryKind
from trunkline.store import open_store
from trunkline.testing.etcd import EtcdServer, etcd_binaries
from trunkline.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.nixl.conftest import Nixl

    Start: TypeAlias = Callable[..., Nixl]


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """One that may be killed."""
    with EtcdServer(tmp_path_factory.mktemp("etcd"), binary=etcd_binaries()[-1]).start() as server:
        yield server


@pytest.fixture(scope="module")
def place() -> str:
    return f"/adapted/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def start(start_nixl: Start, etcd: EtcdServer, place: str) -> Start:
    """Start an adapted agent, which publishes."""

    def start(name: str, role: str, **environment: str) -> Nixl:
        agent = start_nixl(name, (etcd.endpoint, place, role), **environment)
        agent.ask("publish")
        return agent

    return start


def move(one: Nixl, other: Nixl, operation: str, *, notification: str = "") -> bool:
    """Fill the memories of two agents, have one move all, and return whether both hold the same afterwards."""
    one.ask("fill", 1)
    other.ask("fill", 2)
    local, remote = ([[agent.ask("address"), SIZE, 0]] for agent in (one, other))
    assert one.ask("digest") != other.ask("digest")
    assert one.ask("transfer", operation, local, remote, other.name, notification) == "DONE"
    return bool(one.ask("digest") == other.ask("digest"))


def test_a_fleet_of_adapted_plain_and_trunklines_agents(
    start: Start, start_nixl: Start, etcd: EtcdServer, place: str
) -> None:
    """One story, for each agent keeps a processor busy: restart, update, attributes, etcd away, a mixed fleet."""
    prefill = start("prefill", "prefill")
    decode = start("decode", "decode")
    for one, other in ((prefill, decode), (decode, prefill)):
        assert one.ask("fetch", other.name)
    for operation in ("READ", "WRITE"):
        assert move(decode, prefill, operation, notification=b"done".hex())
        assert prefill.ask("notification") == ["decode", b"done".hex()]

    # attributes and filters
    assert decode.ask("found", "prefill") == ["prefill"]
    prefill.ask("set_role", "idle")
    assert decode.ask("event", "PeerUpdated", "prefill")
    assert decode.ask("found", "prefill") == []

    # more memory: added, with nothing prepared anew
    address = prefill.ask("register_more")
    assert decode.ask("event", "PeerUpdated", "prefill")
    assert decode.ask("loads", "prefill") == 1
    mine = decode.ask("address")
    assert decode.ask("transfer", "READ", [[mine, SIZE, 0]], [[address, SIZE, 0]], "prefill", "") == "DONE"

    # kill -9, and again under its name: nothing but the event
    prefill.kill()
    prefill = start("prefill", "prefill")
    assert decode.ask("event", "PeerJoined", "prefill")
    assert decode.ask("loads", "prefill") == 2
    assert prefill.ask("fetch", "decode")
    for operation in ("READ", "WRITE"):
        assert move(decode, prefill, operation, notification=b"again".hex())
        assert prefill.ask("notification") == ["decode", b"again".hex()]

    # etcd killed: transfers go on; started again: so do events
    etcd.kill()
    assert decode.ask("event", "StoreLost", "")
    assert move(decode, prefill, "READ")
    etcd.start()
    assert decode.ask("event", "StoreBack", "")
    eventually(lambda: prefill.ask("sessions"))
    address = prefill.ask("register_more")
    assert decode.ask("event", "PeerUpdated", "prefill")
    assert decode.ask("transfer", "READ", [[mine, SIZE, 0]], [[address, SIZE, 0]], "prefill", "") == "DONE"

    # a plain one and Trunkline's beside it, each with each
    prefill.close()
    assert decode.ask("event", "PeerLeft", "prefill")
    assert not decode.ask("is_loaded", "prefill")
    plain = start_nixl("plain", NIXL_ETCD_ENDPOINTS=etcd.endpoint, NIXL_ETCD_NAMESPACE=place)
    plain.ask("publish")
    assert decode.ask("fetch", "plain")
    assert plain.ask("fetch", "decode")
    assert move(decode, plain, "READ")
    assert move(plain, decode, "WRITE", notification=b"plain".hex())
    assert decode.ask("notification") == ["plain", b"plain".hex()]
    memory = np.zeros(SIZE, np.uint8)
    rows = [[memory.ctypes.data, SIZE, 0]]
    with Agent("ours", store=etcd.endpoint, namespace=place, devices="lo") as agent:
        agent.register(memory)
        agent.publish()
        local = DescriptorList.of(MemoryKind.DRAM, rows)
        for number, nixl in enumerate((decode, plain)):
            peer = agent.fetch(nixl.name)
            assert (peer.incarnation is None) == (nixl is plain)
            nixl.ask("fill", number)
            theirs = [[nixl.ask("address"), SIZE, 0]]
            agent.read(DescriptorList.of(MemoryKind.DRAM, theirs), into=local, peer=peer, notify=b"read").wait()
            assert np.array_equal(memory, noise(number))
            assert nixl.ask("notification") == ["ours", b"read".hex()]
            assert nixl.ask("fetch", "ours")
            nixl.ask("fill", 8 + number)
            assert nixl.ask("transfer", "WRITE", theirs, rows, "ours", b"written".hex()) == "DONE"
            assert agent.wait_notification().sender == nixl.name
            assert np.array_equal(memory, noise(8 + number))
    assert decode.ask("event", "PeerLeft", "ours")
    assert not decode.ask("is_loaded", "ours")
    assert plain.ask("forgets", "ours")

    # the plain one is killed, and comes back: its next publication says so
    plain.kill()
    plain = start_nixl("plain", NIXL_ETCD_ENDPOINTS=etcd.endpoint, NIXL_ETCD_NAMESPACE=place)
    plain.ask("publish")
    assert decode.ask("event", "PeerJoined", "plain")
    assert move(decode, plain, "READ")
    decode.close()
    assert plain.ask("forgets", "decode")


def test_an_agent_that_has_found_etcd_itself(start: Start, etcd: EtcdServer, place: str) -> None:
    """With NIXL's own variables set it puts its marker, with no lease, before it is adapted."""
    agent = start("both", "x", NIXL_ETCD_ENDPOINTS=etcd.endpoint, NIXL_ETCD_NAMESPACE=place)
    with open_store(etcd.endpoint) as store:
        keys = store.list(f"{place}/both/", timeout=5).entries
        assert [entry.key for entry in keys] == [f"{place}/both/", f"{place}/both/metadata"]
        assert all(entry.lease for entry in keys)
        agent.close()
        eventually(lambda: "both" not in Directory(store, namespace=place).names())


@pytest.mark.parametrize("is_ours_first", [True, False], ids=["ours first", "NVIDIA's first"])
def test_two_copies_of_ucx_are_refused(is_ours_first: bool) -> None:
    """Merely mapped: using them both might not end well."""
    pytest.importorskip("nixl_cu12")
    code = (
        "import ctypes, pathlib, nixl_cu12\n"
        "from tests.unit.nixl.fake_agent import FakeAgent\n"
        "from trunkline import Agent, errors\n"
        "from trunkline.backend.plugins.ucx.library import load_native\n"
        "from trunkline.nixl import adapt\n"
        "(theirs,) = (pathlib.Path(nixl_cu12.__file__).parents[1] / 'nixl_cu12.libs').glob('libucp-*')\n"
        "try:\n"
        f"    if {is_ours_first}:\n"
        "        load_native()\n"
        "        ctypes.CDLL(str(theirs))\n"
        "        adapt(FakeAgent('a'), store='memory://x')\n"
        "    else:\n"
        "        ctypes.CDLL(str(theirs))\n"
        "        adapt(FakeAgent('a'), store='memory://x').close()\n"
        "        Agent('b')\n"
        "except errors.BackendUnavailableError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "two copies don't get along" in done.stdout, done.stderr
    assert "nixl_cu12.libs/libucp-" in done.stdout
