from __future__ import annotations

import shlex

import pytest

from trunkline.cli.offer import take_command
from trunkline.cli.store import FoundStore, find_store

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
