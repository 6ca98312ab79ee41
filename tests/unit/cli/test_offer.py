from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

from trunkline.cli.main import app
from trunkline.cli.offer import direct_command, parse_address, take_command
from trunkline.cli.store import FoundStore, find_store
from trunkline.exchange.address import Address
from trunkline.offer.ticket import Ticket

if TYPE_CHECKING:
    from pathlib import Path

GIVEN = FoundStore("etcd://10.0.0.1:2379", is_given=True)


def test_the_command_names_the_store_and_namespace() -> None:
    assert take_command("weights", "w.bin", GIVEN, "/prod") == (
        "trunkline take -o w.bin --store etcd://10.0.0.1:2379 --namespace /prod weights"
    )
    assert take_command("weights", "w.bin", GIVEN._replace(is_given=False), None) == "trunkline take -o w.bin weights"


def test_the_command_is_safe_in_a_shell() -> None:
    name, file = "my $(weights); rm", "-rf *"
    command = take_command(name, file, GIVEN, None)
    assert shlex.split(command)[3] == "./-rf *"
    assert shlex.split(command)[-1] == name
    assert shlex.split(take_command("-f", "f", GIVEN, None))[-2:] == ["--", "-f"]


@pytest.mark.parametrize(
    ("url", "is_on_loopback"),
    [
        ("http://127.0.0.1:2379", True),
        ("localhost:2379", True),
        ("etcd://[::1]:2379", True),
        ("etcd://10.0.0.1:2379", False),
        ("etcd://127.0.0.1:2379,10.0.0.1:2379", False),
    ],
)
def test_a_store_on_loopback_is_known(url: str, *, is_on_loopback: bool) -> None:
    assert FoundStore(url, is_given=True).is_on_loopback == is_on_loopback


def test_a_given_store_is_used_as_it_is() -> None:
    with find_store("etcd://10.0.0.1:2379") as found:
        assert found == GIVEN


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", Address("10.0.0.1", 0)),
        ("node-1:4000", Address("node-1", 4000)),
        ("::1", Address("::1", 0)),
        ("[::1]", Address("::1", 0)),
        ("[::1]:4000", Address("::1", 4000)),
    ],
)
def test_addresses_are_understood(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":1", "a:b", "a:70000", "a/b", "u@a", "[::1", "a?b", "a#b"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="HOST or HOST:PORT"):
        parse_address(text)


def test_the_command_for_a_ticket_is_safe_in_a_shell() -> None:
    ticket = Ticket(Address("::1", 4000), b"s" * 16, b"d" * 32)
    assert shlex.split(direct_command(ticket, "-a b")) == ["trunkline", "take", "-o", "./-a b", str(ticket)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "Or give --direct"),
        (("--direct", "--name", "x"), "a ticket instead of a name"),
        (("--name", "x", "--listen", "::1"), "give --direct"),
        (("--direct", "--listen", "host:port"), "HOST:PORT"),
    ],
)
def test_options_that_contradict_each_other(tmp_path: Path, options: tuple[str, ...], reason: str) -> None:
    (tmp_path / "in").write_bytes(b"x")
    said = CliRunner().invoke(app, ["offer", str(tmp_path / "in"), *options])
    assert said.exit_code == 2
    assert reason in " ".join(said.output.replace("│", " ").split())
