from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from trunkline.cli.main import app
from trunkline.cli.wait import SHOWN_NAMES, describe, progress, state
from trunkline.directory.directory import Directory
from trunkline.directory.event import PeerJoined, StoreLost, Synced
from trunkline.directory.gathering import Gathering
from trunkline.directory.view import AgentListing
from trunkline.errors import StoreAuthError
from trunkline.store.contract import Put, Transaction
from trunkline.store.registry import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typer.testing import Result

    from trunkline.directory.publisher import Publisher
    from trunkline.store.contract import Store

STORE = "memory://waiting"


def run(*arguments: str) -> Result:
    """Wait for no time at all, so that what is there now decides."""
    return CliRunner().invoke(app, ["wait", "--store", STORE, "--timeout", "0", *arguments])


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store(STORE) as store:
        yield store


@pytest.fixture
def agents(store: Store) -> Iterator[dict[str, Publisher]]:
    directory = Directory(store)
    roles = {"decode-0": "decode", "decode-1": "decode", "prefill-0": "prefill"}
    found = {
        name: directory.open_publisher(name, incarnation=f"{number}" * 32, attributes={"role": role, "rack": "r [b]7"})
        for number, (name, role) in enumerate(roles.items())
    }
    for publisher in found.values():
        publisher.publish(b"metadata")
    yield found
    for publisher in found.values():
        publisher.close()


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["decode-0", "decode-1", "prefill-0"]),
        (["--count", "3"], ["decode-0", "decode-1", "prefill-0"]),
        (["decode-*"], ["decode-0", "decode-1"]),
        (["-l", "role=decode", "-n", "2"], ["decode-0", "decode-1"]),
        (["-l", "role=decode", "-l", "rack=r [b]7", "*-1"], ["decode-1"]),
        (["*[!0]"], ["decode-1"]),
    ],
)
def test_those_that_match_are_printed(arguments: list[str], names: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == names


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize(
    "arguments", [["--count", "4"], ["nobody*"], ["-l", "role=decode", "-n", "3"], ["-l", "role=", "decode-0"]]
)
def test_too_few_are_status_1_and_one_line(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("trunkline: waited 0 s for ")
    assert f"under /nixl/agents in {STORE}" in last
    assert " there" in last


def test_those_that_drain_do_not_count_and_are_named(agents: dict[str, Publisher]) -> None:
    agents["decode-1"].update(state="draining")
    result = run("decode-*", "--count", "2")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith("1 there: decode-0; 1 draining or suspect: decode-1")
    assert run("decode-*").stdout == "decode-0\n"


def test_those_that_have_published_nothing_do_not_count(agents: dict[str, Publisher]) -> None:
    agents["decode-1"].withdraw()
    assert run("decode-*").stdout == "decode-0\n"


@pytest.mark.usefixtures("agents")
def test_json_says_more() -> None:
    (found,) = json.loads(run("prefill-*", "--json").stdout)
    assert found["pid"] > 0
    assert found["host"]
    del found["pid"], found["host"]
    assert found == {
        "name": "prefill-0",
        "incarnation": "2" * 32,
        "attributes": {"role": "prefill", "rack": "r [b]7"},
        "labels": {"metadata": 1},
        "is_nixl": False,
        "state": "ready",
    }


@pytest.fixture
def nixl(store: Store) -> str:
    """Keys as an agent of NIXL's own leaves them: without a lease."""
    for key in ("/nixl/agents//theirs/", "/nixl/agents//theirs/metadata"):
        store.transact(Transaction((), (Put(key, b"x"),)), timeout=1)
    return "theirs"


def test_nixls_own_count_unless_told_otherwise(nixl: str) -> None:
    assert run().stdout == f"{nixl}\n"
    (found,) = json.loads(run("--json").stdout)
    assert found["is_nixl"]
    assert run("--no-include-nixl").exit_code == 1


@pytest.mark.parametrize("name", ["a\u202eb", "[red]x[red]", "a\u2028b", "it's; $(rm)"])
def test_a_name_is_one_line_that_does_nothing_to_a_terminal(name: str, store: Store) -> None:
    with Directory(store).open_publisher(name, incarnation="1" * 32, attributes={"x": "\x1b[2J"}) as publisher:
        publisher.publish(b"metadata")
        for result in (run(), run("--json"), run("--count", "2")):
            assert all(line.isprintable() for line in result.output.splitlines())
            assert "\u202e" not in result.output
        assert len(run().stdout.splitlines()) == 1
        assert json.loads(run("--json").stdout)[0]["name"] == name
        assert json.loads(run("--json").stdout)[0]["attributes"] == {"x": "\x1b[2J"}


def test_a_warning_about_a_record_does_nothing_to_a_terminal(store: Store, nixl: str) -> None:
    store.transact(Transaction((), (Put("/nixl/agents/.presence/a\u202eb", b"nonsense"),)), timeout=1)
    result = run()
    assert result.stdout == f"{nixl}\n"
    assert r"ignoring the record /nixl/agents/.presence/a\u202eb" in result.stderr
    assert "\u202e" not in result.output


def test_another_namespace_has_other_agents(store: Store) -> None:
    with Directory(store, namespace="/other").open_publisher("a", incarnation="1" * 32) as publisher:
        publisher.publish(b"metadata")
        assert run("--namespace", "/other").stdout == "a\n"
        assert run().exit_code == 1
        assert run("--namespace", "other").exit_code == 1


@pytest.mark.parametrize("count", ["0", "-1", "x"])
def test_a_count_that_means_nothing_is_bad_usage(count: str) -> None:
    assert run("--count", count).exit_code == 2


def test_a_store_that_refuses_to_be_watched_ends_the_waiting_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise StoreAuthError("no right to watch")

    monkeypatch.setattr("trunkline.directory.watch.DirectoryWatch.next", refuse)
    result = run("--timeout", "60")
    assert result.exit_code == 1
    assert result.stderr.endswith("trunkline: no right to watch\n")


def listing(name: str, **more: Any) -> AgentListing:
    return AgentListing(name, "1" * 32, **more)


def test_the_wish_in_words() -> None:
    assert describe("*", {}, 1) == "1 agent"
    assert describe("d\x1b*", {"role": "decode", "x": "\n"}, 8) == r"8 agents called 'd\x1b*' with role=decode, x=\n"


def test_a_long_list_is_cut() -> None:
    gathering = Gathering()
    for number in range(SHOWN_NAMES + 2):
        gathering.apply(PeerJoined(listing(f"{number:02}")))
    assert state(gathering).startswith("22 there: 00, 01")
    assert state(gathering).endswith(", 19 and 2 more")


def test_the_progress_in_words() -> None:
    gathering = Gathering()
    assert progress(gathering) == "asking who is there"
    gathering.apply(Synced())
    assert progress(gathering) == "0 there"
    gathering.apply(StoreLost("etcd\nis away"))
    assert progress(gathering) == r"the store does not answer: etcd\nis away"
