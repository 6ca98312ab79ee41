"""The demo, as a user runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.cli.conftest import Commands


@pytest.mark.parametrize("transport", ["default", "tcp"])
def test_every_check_of_the_demo_holds(commands: Commands, etcd_endpoint: str, transport: str) -> None:
    done = commands.run("demo", "--blocks", 16, "--transport", transport, "--store", etcd_endpoint)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    assert done.stdout.count("✓") == 9
    for figure in ("publish → loaded", "GB/s", "death → noticed", "death → reading again", "16,777,216"):
        assert figure in done.stdout


def test_the_demo_brings_its_own_etcd(commands: Commands) -> None:
    del commands.environment["NIXL_ETCD_ENDPOINTS"]
    done = commands.run("demo", "--model", "qwen2.5-7b", "--blocks", 4)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_demo_that_breaks_off_says_why_and_fails(commands: Commands) -> None:
    done = commands.run("demo", "--blocks", 2, "--store", "etcd://127.0.0.1:1,ftp://x")
    assert done.returncode == 1
    assert "✗ decode was to tell of 'ready'" in done.stdout
