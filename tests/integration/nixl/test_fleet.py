"""One fleet: Trunkline's agents by both of its APIs, and NVIDIA's, a process each, on one etcd."""

from __future__ import annotations

import hashlib
import itertools
import json
import urllib.request
import uuid
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from tests.integration.nixl.nixl_process import MEMORY, noise, wait_for
from typer.testing import CliRunner

from trunkline import Directory, open_store
from trunkline.cli.main import app
from trunkline.metadata.codec import decode, encode
from trunkline.metadata.key import DEFAULT_NAMESPACE, NIXL_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from tests.integration.nixl.conftest import Nixl

AGENT, OURS, NVIDIAS = KINDS = ("Agent", "trunkline.nixl", "nixl_cu12")
PAIRS = list(itertools.permutations(KINDS, 2))
SIZE = 65 << 20
"""Bytes of memory of each member."""
SMALL = 9 << 20
"""How many of them matter where not all are needed."""
PART = 4096
"""Bytes of each region of one that publishes in parts."""
BLOCKS = 2000
PAYLOADS = [b"", bytes(range(256)), b"x" * 20_000]


class Fleet(NamedTuple):
    """One of each kind, which have found each other."""

    members: dict[str, Nixl]
    start: Callable[..., Nixl]
    """Starts one more, of a kind, with little memory."""
    place: str
    etcd: str


@pytest.fixture(scope="module", params=["namespace set", "namespace unset, tcp"])
def fleet(request: pytest.FixtureRequest, start_nixl: Callable[..., Nixl], etcd_endpoint: str) -> Iterator[Fleet]:
    """With the namespace unset an ``Agent`` has to be told NIXL's own, with its double slash."""
    environment = {"NIXL_ETCD_ENDPOINTS": etcd_endpoint}
    place = NIXL_NAMESPACE
    if request.param == "namespace set":
        environment["NIXL_ETCD_NAMESPACE"] = place = f"/test/{uuid.uuid4().hex}"
    else:
        environment["UCX_TLS"] = "tcp"

    def start(kind: str, name: str | None = None, **more: str) -> Nixl:
        name = name or f"{kind}-{uuid.uuid4().hex[:8]}"
        return start_nixl(name, kind=kind, **environment | {MEMORY: str(PART)} | more)

    members = {kind: start(kind, **{MEMORY: str(SIZE)}) for kind in KINDS}
    for member in members.values():
        member.ask("publish")
    for one, other in PAIRS:
        assert members[one].ask("fetch", members[other].name)
    yield Fleet(members, start, place, etcd_endpoint)
    for member in members.values():
        member.kill()


def rows_at(base: int, length: int) -> NDArray[np.uint64]:
    """One block of a length, off the start, or with 0 many small ones that don't touch."""
    if length:
        return np.array([[base + 4096, length, 0]], np.uint64)
    start = base + np.arange(BLOCKS, dtype=np.uint64) * np.uint64(4096 + 64)
    return np.stack([start, np.full(BLOCKS, 4096, np.uint64), np.zeros(BLOCKS, np.uint64)], 1)


@pytest.mark.parametrize(
    "length", [8, 4096, 65536, 1 << 20, 64 << 20, 0], ids=lambda length: str(length or "2000x4096")
)
@pytest.mark.parametrize("operation", ["READ", "WRITE"])
@pytest.mark.parametrize(("initiator", "target"), PAIRS)
def test_bytes_move_and_a_notification_follows(
    fleet: Fleet, initiator: str, target: str, operation: str, length: int
) -> None:
    near, far = fleet.members[initiator], fleet.members[target]
    size = SIZE if length > SMALL else SMALL
    near.ask("fill", 1, size)
    far.ask("fill", 2, size)
    local, remote = (rows_at(member.ask("address"), length).tolist() for member in (near, far))
    message = f"{operation} of {length}".encode().hex()
    assert near.ask("transfer", operation, local, remote, far.name, message) == "DONE"
    assert far.ask("notification") == [near.name, message]
    source, sink, other = (noise(2, size), near, far) if operation == "READ" else (noise(1, size), far, near)
    expected = noise(1 if operation == "READ" else 2, size).copy()
    for offset, count, _ in rows_at(0, length).tolist():
        expected[offset : offset + count] = source[offset : offset + count]
    assert sink.ask("digest", size) == hashlib.sha256(expected.data).hexdigest()
    assert other.ask("digest", size) == hashlib.sha256(source.data).hexdigest()


@pytest.mark.parametrize("payload", PAYLOADS, ids=len)
@pytest.mark.parametrize(("sender", "receiver"), PAIRS)
def test_notifications_arrive(fleet: Fleet, sender: str, receiver: str, payload: bytes) -> None:
    one, other = fleet.members[sender], fleet.members[receiver]
    one.ask("notify", other.name, payload.hex())
    assert other.ask("notification") == [one.name, payload.hex()]


@pytest.mark.parametrize("publisher", KINDS)
def test_parts_add_up_and_are_forgotten_when_withdrawn(fleet: Fleet, publisher: str) -> None:
    one = fleet.start(publisher)
    regions = [one.ask("address"), one.ask("extend")]
    first, second = ([[address, PART, 0]] for address in regions)
    one.ask("fill", 3)
    readers = [member for kind, member in fleet.members.items() if kind != publisher]
    one.ask("publish_part", "connection", None)
    for number, address in enumerate(regions):
        one.ask("publish_part", f"part-{number}", address)
    for reader in readers:
        assert reader.ask("fetch", one.name, "connection")
        assert not reader.ask("offers", one.name, first)
        assert reader.ask("fetch", one.name, "part-1")
        assert reader.ask("gets_to_offer", one.name, second)
        assert not reader.ask("offers", one.name, first)
        assert reader.ask("fetch", one.name, "part-0")
        assert reader.ask("gets_to_offer", one.name, first + second)
        reader.ask("fill", 0, SMALL)
        base = reader.ask("address")
        local = [[base, PART, 0], [base + PART, PART, 0]]
        assert reader.ask("transfer", "READ", local, first + second, one.name, "") == "DONE"
        expected = noise(0, SMALL).copy()
        expected[:PART], expected[PART : 2 * PART] = noise(3, PART), 7
        assert reader.ask("digest", SMALL) == hashlib.sha256(expected.data).hexdigest()
    with open_store(fleet.etcd) as store:
        entries = store.list(f"{fleet.place}/{one.name}/", timeout=10).entries
        parts = {entry.key.rpartition("/")[2]: entry.value for entry in entries if entry.value}
    assert set(parts) == {"connection", "part-0", "part-1"}
    for blob in parts.values():
        assert encode(decode(blob)) == blob
    one.ask("withdraw")
    for reader in readers:
        assert reader.ask("forgets", one.name)
    one.kill()


def watches(etcd: str) -> int:
    """Return how many watches an etcd serves."""
    with urllib.request.urlopen(f"{etcd}/metrics", timeout=10) as answer:
        (line,) = (line for line in answer.read().splitlines() if line.startswith(b"etcd_debugging_mvcc_watcher_total"))
    return int(float(line.split()[1]))


@pytest.mark.parametrize("publisher", KINDS)
def test_one_that_is_withdrawn_is_forgotten_and_found_again(fleet: Fleet, publisher: str) -> None:
    one = fleet.start(publisher)
    theirs = [[one.ask("address"), PART, 0]]
    for _ in range(2):
        one.ask("publish")
        for kind, member in fleet.members.items():
            if kind != publisher:
                before = watches(fleet.etcd)
                assert member.ask("fetch", one.name)
                if kind == NVIDIAS:  # it begins to watch later than it loads, and misses what happens until then
                    wait_for(lambda before=before: watches(fleet.etcd) > before)  # type: ignore[misc]
                mine = [[member.ask("address"), PART, 0]]
                assert member.ask("transfer", "WRITE", mine, theirs, one.name, "") == "DONE"
        one.ask("withdraw")
        forgotten = {kind: member.ask("forgets", one.name) for kind, member in fleet.members.items()}
        assert all(forgotten.values()), forgotten
    one.kill()


@pytest.mark.parametrize("victim", [AGENT, OURS])
def test_ours_that_is_killed_is_forgotten_with_its_lease_and_found_again(fleet: Fleet, victim: str) -> None:
    """NIXL's watch hears that the marker went with the lease. Its own that are killed stay known for ever."""
    nixl = fleet.members[NVIDIAS]
    first = fleet.start(victim, TRUNKLINE_SESSION_TTL="2")
    first.ask("publish")
    assert nixl.ask("fetch", first.name)
    first.kill()
    assert nixl.ask("forgets", first.name)
    second = fleet.start(victim, first.name)
    second.ask("publish")
    assert nixl.ask("fetch", first.name)
    mine, theirs = ([[member.ask("address"), PART, 0]] for member in (nixl, second))
    assert nixl.ask("transfer", "READ", mine, theirs, first.name, "") == "DONE"
    second.close()


def test_the_directory_shows_all_and_their_bytes_are_written_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no namespace set the command looks where NIXL is, too."""
    monkeypatch.delenv("NIXL_ETCD_NAMESPACE", raising=False)
    monkeypatch.setattr("trunkline.cli.main.signal.signal", lambda *_: None)
    where = [] if fleet.place == NIXL_NAMESPACE else ["--namespace", fleet.place]
    shown = CliRunner().invoke(app, ["agents", "--store", fleet.etcd, "--json", *where])
    assert shown.exit_code == 0, shown.output
    listed = {agent["name"]: agent for agent in json.loads(shown.stdout)}
    with open_store(fleet.etcd) as store:
        directory = Directory(store, namespace=fleet.place if where else DEFAULT_NAMESPACE)
        assert {member.name for member in fleet.members.values()} <= set(directory.names())
        for kind, member in fleet.members.items():
            agent = listed[member.name]
            assert (agent["namespace"], agent["memory"]) == (fleet.place, {"DRAM": SIZE})
            assert agent["state"] == ("no lease" if kind == NVIDIAS else "ready")
            entry, _ = store.get(f"{fleet.place}/{member.name}/metadata", timeout=10)
            assert entry is not None
            assert encode(decode(entry.value)) == entry.value
