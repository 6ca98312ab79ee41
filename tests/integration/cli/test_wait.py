"""Waiting for agents of other processes, in a real etcd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from trunkline import Directory, open_store
from trunkline.metadata.key import MetadataKey
from trunkline.store.contract import Put, Transaction
from trunkline.testing.etcd import EtcdServer, etcd_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.cli.conftest import Commands


@pytest.fixture
def directory(etcd_endpoint: str, namespace: str) -> Iterator[Directory]:
    with open_store(etcd_endpoint) as store:
        yield Directory(store, namespace=namespace)


def read_line(process: subprocess.Popen[str], words: str) -> None:
    """Read what a command says on standard error up to a line with these words."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if words in line:
            return
    raise AssertionError("".join(seen))


def test_it_ends_when_the_last_of_them_has_come(commands: Commands, tmp_path: Path, directory: Directory) -> None:
    waiting = commands.start("wait", "--count", 3, "-l", "role=decode", "--timeout", 90, "d*")
    read_line(waiting, "0 there")
    for name in ("d-0", "d-1"):
        (tmp_path / name).write_bytes(b"x")
        commands.offer(tmp_path / name, name, "-a", "role=decode", "--attribute", "rack=[7]=b")
        read_line(waiting, name)
    with directory.open_publisher("d-2", incarnation="2" * 32, attributes={"role": "prefill"}) as third:
        third.publish(b"metadata")
        assert waiting.poll() is None
        third.update(attributes={"role": "decode"})
        said, logged = waiting.communicate(timeout=60)
        assert waiting.returncode == 0, logged
        assert said.splitlines() == ["d-0", "d-1", "d-2"]
        third.update(state="draining")
        found = commands.run("wait", "--timeout", 0, "--json", "d-*")
    assert found.returncode == 0, found.stderr
    agents = {agent["name"]: agent for agent in json.loads(found.stdout)}
    assert set(agents) == {"d-0", "d-1"}
    assert agents["d-0"]["attributes"] == {"role": "decode", "rack": "[7]=b"}
    assert agents["d-0"]["pid"] != agents["d-1"]["pid"]
    assert {agent["state"] for agent in agents.values()} == {"ready"}


def test_too_few_in_time_are_told_in_one_line(commands: Commands, directory: Directory, namespace: str) -> None:
    with directory.open_publisher("decode-0", incarnation="1" * 32) as publisher:
        publisher.publish(b"metadata")
        done = commands.run("wait", "--count", 8, "--timeout", 0.5)
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"trunkline: waited 0.5 s for 8 agents under {namespace} in etcd://127.0.0.1:")
    assert last.endswith(": 1 there: decode-0")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_status_130(commands: Commands, number: int) -> None:
    waiting = commands.start("wait", "--timeout", 90)
    read_line(waiting, "0 there")
    waiting.send_signal(number)
    said, logged = waiting.communicate(timeout=30)
    assert (waiting.returncode, said) == (130, ""), logged


@pytest.mark.parametrize("seconds", [0, 0.5, 4])
def test_a_store_that_is_not_there_is_told_as_such(commands: Commands, seconds: float) -> None:
    done = commands.run("wait", "--store", "etcd://127.0.0.1:1", "--timeout", seconds)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"trunkline: waited {seconds:g} s for 1 agent, and the store at etcd://127.0.0.1:1 does not")
    assert "Traceback" not in done.stderr


def test_a_store_that_goes_away_is_told_with_who_was_there(commands: Commands, tmp_path: Path, namespace: str) -> None:
    with EtcdServer(tmp_path / "etcd", binary=etcd_binaries()[0]).start() as server:
        with open_store(server.endpoint) as store:
            publisher = Directory(store, namespace=namespace).open_publisher("a", incarnation="1" * 32)
            publisher.publish(b"metadata")
            waiting = commands.start("wait", "--store", server.endpoint, "--count", 2, "--timeout", 5)
            read_line(waiting, "1 there: a")
            server.kill()
            publisher.close(timeout=0.1)
        _, logged = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert logged.splitlines()[-1].endswith("when it last answered there were 1 there: a")


def test_a_store_that_comes_later_is_waited_for(commands: Commands, tmp_path: Path, namespace: str) -> None:
    server = EtcdServer(tmp_path / "etcd", binary=etcd_binaries()[0])
    waiting = commands.start("wait", "--store", server.endpoint, "--timeout", 90)
    read_line(waiting, "does not answer")
    with (
        server.start(),
        open_store(server.endpoint) as store,
        Directory(store, namespace=namespace).open_publisher("late", incarnation="1" * 32) as publisher,
    ):
        publisher.publish(b"metadata")
        said, logged = waiting.communicate(timeout=60)
    assert (waiting.returncode, said) == (0, "late\n"), logged


def test_nixls_own_agents_count_unless_told_otherwise(commands: Commands, etcd_endpoint: str, namespace: str) -> None:
    key = MetadataKey(namespace, "theirs")
    with open_store(etcd_endpoint) as store:
        for each in (key.marker, str(key)):
            store.transact(Transaction((), (Put(each, b"x"),)), timeout=10)
    assert commands.run("wait", "--timeout", 10).stdout == "theirs\n"
    assert commands.run("wait", "--timeout", 0.5, "--no-include-nixl").returncode == 1


def test_on_a_terminal_nothing_of_others_is_a_command_to_it(
    commands: Commands, directory: Directory, namespace: str
) -> None:
    """Standard error is a terminal, and shows how the waiting stands, with somebody's name in it."""
    name = "a\u202eb[red]c"
    with directory.open_publisher(name, incarnation="1" * 32) as publisher:
        publisher.publish(b"metadata")
        ours, theirs = os.openpty()
        arguments = [sys.executable, "-m", "trunkline", "wait", "--count", "2", "--timeout", "1"]
        done = subprocess.run(
            arguments, stdout=subprocess.PIPE, stderr=theirs, env=commands.environment, timeout=60, check=False
        )
        os.close(theirs)
        shown = bytearray()
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # all that was written has been read
                break
        os.close(ours)
    assert done.returncode == 1
    assert "\u202e".encode() not in shown
    assert rb"\u202eb[red]c" in shown
