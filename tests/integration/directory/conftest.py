"""Directories on a real etcd, and agents in processes of their own that can be killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trunkline.directory import Directory
from trunkline.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trunkline.store.contract import Store

HERE = Path(__file__).parent


class Child:
    """A script of this folder that answers each line it is sent with a line.

    Args:
        script: Its file name.
        arguments: What it is started with.
        environment: Added to ours; None takes a variable away.
    """

    def __init__(self, script: str, *arguments: str, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def read(self) -> str:
        """Return the next line; empty when the process has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        """Send a line and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self.read()

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()


@pytest.fixture
def store(etcd_endpoint: str) -> Iterator[Store]:
    with open_store(etcd_endpoint) as store:
        yield store


@pytest.fixture
def directory(store: Store, namespace: str) -> Directory:
    return Directory(store, namespace=namespace)


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    """Start children, which are killed after the test."""
    with contextlib.ExitStack() as children:

        def start(script: str, *arguments: str, environment: dict[str, str]) -> Child:
            child = Child(script, *arguments, environment=environment)
            children.callback(child.close)
            return child

        yield start
