"""Targets in processes of their own, and initiators over the default transports and over TCP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from trunkline import Agent
from trunkline.testing.waiting import stop_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 64 << 20


class Target:
    """A process with an agent that offers ``SIZE`` bytes of ones as ``memory``."""

    def __init__(self, name: str = "target", *, store: str | None = None, namespace: str | None = None) -> None:
        environment = {**os.environ, "UCX_NET_DEVICES": "lo"}
        if store is not None and namespace is not None:
            environment |= {"NIXL_ETCD_ENDPOINTS": store, "NIXL_ETCD_NAMESPACE": namespace}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("target.py")), str(SIZE), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, *words: object) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self) -> None:
        stop_process(self.process)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Let it close its agent in good order, and end."""
        self.process.communicate("close\n")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture(params=["default", "ucx", "tcp"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "default":
        monkeypatch.setenv("TRUNKLINE_CMA", "off")
    if request.param == "tcp":
        monkeypatch.setenv("UCX_TLS", "tcp")
    return str(request.param)


@pytest.fixture
def tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TCP the target's own process has to take part, so it can hold a transfer up."""
    monkeypatch.setenv("TRUNKLINE_CMA", "off")
    monkeypatch.setenv("UCX_TLS", "tcp")


@pytest.fixture
def open_target() -> Iterator[Callable[..., Target]]:
    targets: list[Target] = []

    def open_one(*name: str, **options: Any) -> Target:
        targets.append(Target(*name, **options))
        return targets[-1]

    yield open_one
    for target in targets:
        target.__exit__()


@pytest.fixture
def initiator() -> Iterator[Agent]:
    with Agent("initiator", devices="lo", grace=0.5) as agent:
        yield agent
