"""A role's process, seen from the demo."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

import msgspec

from trunkline.errors import DeadlineError, TrunklineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from trunkline.demo.role import Task
    from trunkline.etcd.keeper import Keeper


class RoleProcess:
    """Runs one role; a context manager that kills it at the end. Not for several threads at once.

    Args:
        role: ``prefill`` or ``decode``.
        task: What it is to do.
        environment: More environment variables for it.
        keeper: Ends it if this process is killed.
    """

    def __init__(self, role: str, task: Task, environment: Mapping[str, str], keeper: Keeper) -> None:
        self.role = role
        self._step_timeout = task.step_timeout
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"trunkline.demo.{role}", msgspec.json.encode(task).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        keeper.watch(self._process.pid)
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=f"trunkline-demo-{role}", daemon=True)
        self._reader.start()

    def wait_event(self, event: str) -> dict[str, Any]:
        """Return the next event, which must be of that name.

        Raises:
            DeadlineError: It did not come in the time for one step.
            TrunklineError: The role failed, or ended, or told of something else.
        """
        try:
            found = self._events.get(timeout=self._step_timeout)
        except queue.Empty:
            raise DeadlineError(
                f"{self.role} told of no {event!r} for {self._step_timeout:g} s", role=self.role
            ) from None
        if found is None:
            raise TrunklineError(f"{self.role} ended before {event!r}", role=self.role)
        if found["event"] != event:
            raise TrunklineError(
                f"{self.role} was to tell of {event!r}, but: {found.get('reason', found['event'])}", role=self.role
            )
        return found

    def kill(self) -> None:
        """End it as a crash would (SIGKILL). Idempotent."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __repr__(self) -> str:
        return f"<RoleProcess {self.role}, pid {self._process.pid}>"

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._events.put(json.loads(line))
            except ValueError:  # a library's own message on standard output
                sys.stderr.write(line.decode("utf-8", "replace"))
        self._events.put(None)
