"""Offering and taking by ticket between real processes, without etcd."""

from __future__ import annotations

import os
import shlex
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.integration.cli.conftest import Commands

from trunkline import Agent
from trunkline.offer.taker import Progress, take_direct
from trunkline.offer.ticket import Ticket, parse_ticket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = os.urandom((3 << 20) + 5)


class Direct:
    """A direct offer of one file.

    Args:
        commands: Runs them.
        path: Where the file is.
        options: More of them.
    """

    def __init__(self, commands: Commands, path: Path, *options: object) -> None:
        path.write_bytes(DATA)
        self.process = commands.start("offer", path, "--direct", "--chunk-size", 1 << 20, *options)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.words = shlex.split(line)
        self.ticket: Ticket = parse_ticket(self.words[-1])


@pytest.fixture
def commands() -> Iterator[Commands]:
    """Commands in an environment that names an etcd which is not there."""
    found = Commands({**os.environ, "NIXL_ETCD_ENDPOINTS": "etcd://127.0.0.1:1", "UCX_NET_DEVICES": "lo"})
    yield found
    found.close()


def test_the_printed_command_takes_it_once(commands: Commands, tmp_path: Path) -> None:
    direct = Direct(commands, tmp_path / "in")
    assert direct.ticket.address.host == "127.0.0.1"
    (tmp_path / "there").mkdir()
    taken = commands.run(*direct.words[1:], cwd=tmp_path / "there")
    assert taken.returncode == 0, taken.stderr
    assert (tmp_path / "there" / "in").read_bytes() == DATA
    _, said = direct.process.communicate(timeout=60)
    assert direct.process.returncode == 0
    assert said.endswith("taken\n")
    again = commands.take(str(direct.ticket), tmp_path / "again")
    assert again.returncode == 1
    assert "An offer ends when it was taken once" in again.stderr
    assert not (tmp_path / "again").exists()


def test_what_the_ticket_is_not_for(commands: Commands, tmp_path: Path) -> None:
    direct = Direct(commands, tmp_path / "in")
    altered = commands.take(str(replace(direct.ticket, digest=bytes(32))), tmp_path / "out")
    assert altered.returncode == 1
    assert "something else than the ticket is for" in altered.stderr
    secret = commands.take(str(replace(direct.ticket, secret=bytes(16))), tmp_path / "out")
    assert secret.returncode == 1
    assert "does not know the ticket's secret" in secret.stderr
    assert len(secret.stderr.splitlines()) == 1
    bad = commands.take(str(direct.ticket)[:-3], tmp_path / "out")
    assert bad.returncode == 1
    assert "this is not a ticket" in bad.stderr
    assert not (tmp_path / "out").exists()
    direct.process.send_signal(signal.SIGINT)
    assert direct.process.communicate(timeout=60)[1].endswith("withdrawn\n")
    assert direct.process.returncode == 0


def test_a_take_that_broke_off_goes_on_by_the_same_ticket(commands: Commands, tmp_path: Path) -> None:
    direct = Direct(commands, tmp_path / "in")

    def break_off(count: int) -> None:
        raise InterruptedError

    progress = Progress(start=lambda total: None, keep=lambda count: None, advance=break_off)
    with Agent("taker", store="", devices="lo") as agent, pytest.raises(InterruptedError):
        take_direct(agent, direct.ticket, tmp_path / "out", timeout=30, progress=progress)
    assert not (tmp_path / "out").exists()
    taken = commands.take(str(direct.ticket), tmp_path / "out")
    assert taken.returncode == 0, taken.stderr
    assert "were there already" in taken.stderr
    assert (tmp_path / "out").read_bytes() == DATA
    assert direct.process.wait(60) == 0


def test_it_listens_where_it_is_told(commands: Commands, tmp_path: Path) -> None:
    direct = Direct(commands, tmp_path / "in", "--listen", "::1")
    assert direct.ticket.address.host == "::1"
    taken = commands.take(str(direct.ticket), tmp_path / "out")
    assert taken.returncode == 0, taken.stderr
