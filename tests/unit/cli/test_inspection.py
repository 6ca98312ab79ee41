"""The commands that look, on a store in memory: what they print, what they refuse, what they leave alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.unit.inspection.conftest import blob
from typer.testing import CliRunner

from trunkline.cli.main import app
from trunkline.cli.watch import describe
from trunkline.directory.directory import Directory
from trunkline.directory.event import (
    DirectoryEvent,
    LeaveReason,
    NameConflict,
    PeerJoined,
    PeerLeft,
    PeerSuspect,
    PeerUpdated,
    StoreBack,
    StoreLost,
    Synced,
)
from trunkline.directory.view import AgentListing
from trunkline.inspection.facts import event_facts
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.catalog import Catalog, TensorEntry, encode_catalog
from trunkline.store.contract import Put, Transaction
from trunkline.store.registry import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

    from trunkline.store.contract import Store

STORE = "memory://looking"
EVIL = "a\u202eb[red]"
ATTRIBUTES = {"role": "decode", "x\x1b[2J": "[blink]"}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [arguments[0], "--store", STORE, *arguments[1:]])


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store(STORE) as store:
        yield store


@pytest.fixture
def evil(store: Store) -> Iterator[str]:
    """An agent whose names would do something to a terminal that was given them as they are."""
    tensor = TensorEntry("t\x1b]0;x\x07[red]", MemoryKind.DRAM, "U8", (64,), 4096, 64, 0)
    catalog = encode_catalog(Catalog((tensor,), {"g\u202eh": (tensor.name,)}))
    with Directory(store).open_publisher(
        EVIL, incarnation="1" * 32, attributes=ATTRIBUTES, backends=["U\x07"]
    ) as publisher:
        publisher.publish(blob(EVIL, 64, 8), catalog=catalog)
        publisher.publish(blob(EVIL, 64), label="l\u202e")
        put(store, "/nixl/agents//n\u202e/", "/nixl/agents//n\u202e/meta\x1b", "/nixl/agents/.chunks/c\u202e/\x1b")
        yield EVIL


def put(store: Store, *keys: str) -> None:
    for key in keys:
        store.transact(Transaction((), (Put(key, b"x"),)), timeout=5)


def state(store: Store) -> tuple[int, list[str]]:
    snapshot = store.list("", keys_only=True, timeout=5)
    return snapshot.revision, [entry.key for entry in snapshot.entries]


COMMANDS = (("agents",), ("show", EVIL), ("gc",), ("gc", "--nixl-agents", "*"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_of_others_does_anything_to_a_terminal_and_nothing_is_written(
    command: tuple[str, ...], store: Store, evil: str
) -> None:
    before = state(store)
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert all(line.isprintable() for line in result.output.splitlines()), result.output
    assert r"\u202e" in result.output
    assert state(store) == before
    said = json.loads(run(*command, "--json").stdout)
    assert said
    assert state(store) == before
    assert evil in Directory(store).names()


def test_the_table_and_its_json(store: Store) -> None:
    with Directory(store).open_publisher(
        "a", incarnation="1" * 32, attributes={"role": "decode"}, backends=["UCX"]
    ) as publisher:
        publisher.publish(blob("a", 1 << 20))
        put(store, "/nixl/agents//n/metadata")
        header, ours, theirs = run("agents").stdout.splitlines()
        assert header.split() == [
            *("NAME", "HOST", "PID", "AGE", "STATE", "BACKENDS", "LABELS", "MEMORY", "ATTRIBUTES", "LEASE")
        ]
        assert ours.split()[4:-1] == ["ready", "UCX", "metadata", "DRAM", "1.0", "MiB", "role=decode"]
        assert ours.split()[-1] in {"30s", "29s", "28s"}
        assert theirs.split() == ["n", "-", "-", "-", "no", "lease", "(NIXL)", "-", "metadata", "?", "-", "-"]
        facts = json.loads(run("agents", "--json", "-l", "role=decode").stdout)
        assert [agent["name"] for agent in facts] == ["a"]
        assert set(facts[0]) == {
            *("name", "namespace", "state", "is_nixl", "incarnation", "host", "pid", "software", "opened_at", "age"),
            *("backends", "labels", "attributes", "memory", "lease", "ttl", "lease_remaining", "revision"),
        }
        assert facts[0]["memory"] == {"DRAM": 1 << 20}
        assert json.loads(run("agents", "--json", "--no-memory", "a").stdout)[0]["memory"] is None
    assert [agent["name"] for agent in json.loads(run("agents", "--json").stdout)] == ["n"]


def test_metadata_that_was_too_much_to_read_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.inspection.overview.MEMORY_BUDGET", 10)
    with Directory(store).open_publisher("a", incarnation="1" * 32) as publisher:
        publisher.publish(blob("a", 1))
        assert "1 agents was not read" in run("agents").stderr
        assert run("agents", "--memory").stderr == ""


def test_regions_one_by_one(store: Store) -> None:
    with Directory(store).open_publisher("a", incarnation="1" * 32) as publisher:
        publisher.publish(blob("a", *range(1, 101)))
        said = run("show", "a").stdout
        facts = json.loads(run("show", "a", "--json").stdout)
    assert "UCX DRAM: 100 regions" in said
    assert len([line for line in said.splitlines() if line.startswith("  0x")]) == 100  # all, where no terminal is
    (section,) = facts["published"][0]["sections"]
    assert section["regions"][0] == {"address": 0x7F00_0000_0000, "length": 1, "device": 0, "key_size": 10}
    assert facts["published"][0]["connections"] == {"UCX": 7}


def test_an_agent_that_is_not_there_is_one_line(store: Store) -> None:
    put(store, "/nixl/agents/decode-0/metadata")
    result = run("show", "decode-1")
    assert result.exit_code == 1
    assert "Similar names: 'decode-0'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_deleting_has_to_be_said(store: Store) -> None:
    put(store, "/nixl/agents/.chunks/a/0", "/nixl/agents/n/", "/nixl/agents/n/metadata")
    result = run("gc")
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == [
        "/nixl/agents/.chunks/a/0",
        "/nixl/agents/n/",
        "/nixl/agents/n/metadata",
    ]
    assert "1 keys to delete; --apply" in result.stderr
    assert len(state(store)[1]) == 3
    facts = json.loads(run("gc", "--apply", "--json").stdout)
    assert facts["deleted"] == ["/nixl/agents/.chunks/a/0"]
    assert [each["is_chosen"] for each in facts["left_over"]] == [True, False]
    assert "nothing to delete" in run("gc").stderr
    assert "2 keys deleted, 0 kept" in run("gc", "--nixl-agents", "n", "--apply").stderr
    assert run("gc").stdout == "nothing is left over under /nixl/agents/\n"
    assert state(store)[1] == []


@pytest.mark.parametrize("command", [["agents"], ["show", "a"], ["watch"], ["ping", "a"], ["gc"]], ids=" ".join)
def test_without_a_store_none_is_started(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("NIXL_ETCD_ENDPOINTS", raising=False)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert result.stderr.startswith("trunkline: there is no store to look at: give --store etcd://HOST:2379")
    assert [path.name for path in (tmp_path / "trunkline").iterdir()] == []


@pytest.mark.parametrize("command", [["agents"], ["show", "a"], ["doctor"], ["gc"]], ids=" ".join)
def test_an_impossible_namespace_is_refused(command: list[str], store: Store) -> None:
    result = run(*command, "--namespace", "prod")
    assert result.exit_code == 1
    assert "does not start with a slash" in result.stderr


AGENT = AgentListing("d\x1b", "1" * 32, attributes={"role": "x"}, host="h", pid=7)
EVENTS: list[tuple[DirectoryEvent, str, str]] = [
    (PeerJoined(AGENT), "joined", r"joined    d\x1b  h pid 7  ready  role=x"),
    (PeerJoined(AgentListing("n", "1", is_nixl=True)), "joined", "joined    n  one of NIXL's own"),
    (PeerJoined(AgentListing("n", "", is_readable=False)), "joined", "joined    n  its record is for newer readers"),
    (PeerUpdated(AGENT), "updated", r"updated   d\x1b  ready  role=x"),
    (PeerUpdated(AGENT, "kv", 7), "updated", r"updated   d\x1b  kv is now of generation 7  role=x"),
    (PeerUpdated(AGENT, "kv"), "updated", r"updated   d\x1b  kv is withdrawn  role=x"),
    (PeerSuspect(AGENT), "suspect", r"suspect   d\x1b  its lease ran out, which may mean nothing"),
    (PeerLeft(AGENT, LeaveReason.EXPIRED), "left", r"left      d\x1b  expired"),
    (Synced(), "synced", "synced    those were all that are there"),
    (StoreLost("no\nanswer"), "store_lost", r"lost      the store does not answer: no\nanswer"),
    (StoreBack(), "store_back", "back      the store answers again"),
    (NameConflict("a", "/k", is_lost=True), "name_conflict", "conflict  a  somebody else writes /k"),
]


@pytest.mark.parametrize(("event", "name", "line"), EVENTS)
def test_each_event_is_one_line(event: DirectoryEvent, name: str, line: str) -> None:
    assert describe(event) == line
    facts = json.loads(json.dumps(event_facts(event)))
    assert facts["event"] == name
    if isinstance(event, PeerLeft):
        assert facts["reason"] == "expired"
    if isinstance(event, PeerUpdated):
        assert (facts["label"], facts["generation"]) == (event.label, event.generation)
