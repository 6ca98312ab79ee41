"""Real NIXL agents, each in a process of its own: its UCX and ours don't share one."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = Path(__file__).with_name("nixl_process.py")
ADAPTED = SCRIPT.with_name("adapted_process.py")
MEMBER = SCRIPT.with_name("fleet_process.py")


class Nixl:
    """A real agent, or one that is driven like it; the methods are those of ``NixlProcess``, called by name.

    Args:
        environment: The process's own, beside ours without what would steer NIXL.
        name: Its name; one that no other has, if not given.
        script: What runs.
        arguments: What it is told beside the name.
    """

    def __init__(
        self,
        environment: dict[str, str],
        name: str | None = None,
        script: Path = SCRIPT,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.name = name or f"nixl-{uuid.uuid4().hex[:8]}"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("NIXL_")}
        self._process = subprocess.Popen(
            [sys.executable, str(script), self.name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**inherited, "UCX_NET_DEVICES": "lo", "NIXL_LOG_LEVEL": "FATAL", **environment}
            | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        opened = self._answer()
        if opened != "open":
            self.close()
            pytest.skip(f"nixl-cu12 can't be imported: {opened[1]}")

    def ask(self, method: str, *arguments: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps([method, arguments])}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the process of agent {self.name!r} ended with status {self._process.wait()}"
        return json.loads(line)

    def kill(self) -> None:
        """Let it die without a word; its keys stay."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # its loop ends
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="module")
def start_nixl() -> Iterator[Callable[..., Nixl]]:
    """Start real agents, which end with their module: as long as they live, each keeps a processor busy.

    One behind our phone book is told ``adapter``: store, namespace, role. A member of a fleet is told its ``kind``.
    """
    if importlib.util.find_spec("nixl_cu12") is None:
        pytest.skip("nixl-cu12 is not installed: pip install --no-deps nixl-cu12")
    with contextlib.ExitStack() as agents:

        def start(
            name: str | None = None,
            adapter: tuple[str, str, str] | None = None,
            kind: str | None = None,
            **environment: str,
        ) -> Nixl:
            if kind is not None:
                agent = Nixl(environment, name, MEMBER, (kind,))
            elif adapter is not None:
                agent = Nixl(environment, name, ADAPTED, adapter)
            else:
                agent = Nixl(environment, name)
            agents.callback(agent.close)
            return agent

        yield start
