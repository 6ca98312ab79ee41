"""Workers in processes, under fault control."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trunkline.store import open_store
from trunkline.testing.waiting import stop_process

if TYPE_CHECKING:
    from types import TracebackType

    from trunkline.etcd.server import EtcdServer

TTL = 3.0
PATIENCE = 60.0
"""Seconds after which a test gives up; never an expected time."""


class Member:
    """A process that runs ``worker.py``."""

    def __init__(self, *arguments: object) -> None:
        self._received = b""
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py")), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "GRPC_VERBOSITY": "NONE"},
        )

    def send(self, do: str, **arguments: Any) -> None:
        """Have something done; :meth:`outcome` waits for it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self.process.stdin.flush()

    def outcome(self, timeout: float = PATIENCE) -> dict[str, Any]:
        """Return what was answered: ``value``, or ``error``, ``text`` and ``context``; and ``elapsed``."""
        assert self.process.stdout is not None
        end = time.monotonic() + timeout
        while b"\n" not in self._received:
            left = max(0.0, end - time.monotonic())
            assert select.select([self.process.stdout], [], [], left)[0], "no answer"
            data = os.read(self.process.stdout.fileno(), 1 << 20)
            assert data, f"the process has ended with status {self.process.wait(PATIENCE)}"
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def is_silent(self) -> bool:
        """Return whether no answer has come."""
        assert self.process.stdout is not None
        return not self._received and not select.select([self.process.stdout], [], [], 0)[0]

    def stop(self) -> None:
        """SIGSTOP; return when the process stands."""
        stop_process(self.process)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def leave(self) -> int:
        """Have it leave in order; return its exit status."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """SIGKILL, and close the pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


class Crew:
    """Workers of one group.

    Args:
        server: The etcd.
        name: The group's.
    """

    def __init__(self, server: EtcdServer, name: str) -> None:
        self.server = server
        self.name = name
        self._cleanup = contextlib.ExitStack()
        self._store = self._cleanup.enter_context(open_store(server.endpoint))

    def launch(self, size: int, *ranks: int, timeout: float = PATIENCE, ttl: float = TTL) -> list[Member]:
        """Start workers of these ranks; by default of all."""
        members = []
        for rank in ranks or range(size):
            members.append(Member(self.server.endpoint, self.name, size, rank, ttl, timeout))
            self._cleanup.callback(members[-1].kill)
        return members

    def start(self, size: int, **options: Any) -> list[Member]:
        """Start all workers; return when they have joined."""
        members = self.launch(size, **options)
        assert [member.outcome().get("value") for member in members] == list(range(size))
        return members

    def keys(self) -> list[str]:
        """Return the group's keys."""
        found = self._store.list(f"/trunkline/groups/{self.name}/", keys_only=True, timeout=PATIENCE)
        return [entry.key for entry in found.entries]

    def until_keys(self, part: str, count: int) -> None:
        """Wait until that many keys of the group have this part."""
        with self._store.watch(f"/trunkline/groups/{self.name}/", prefix=True) as watch:
            while sum(part in key for key in self.keys()) != count:
                assert watch.next(PATIENCE) is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()


def ask(members: list[Member], do: str, **arguments: Any) -> list[dict[str, Any]]:
    """Have all do the same; return what each answered."""
    for member in members:
        member.send(do, **arguments)
    return [member.outcome() for member in members]
