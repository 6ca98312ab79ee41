"""An object in a process of its own: NIXL's UCX and ours never share one."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from types import TracebackType

PATIENCE = 120.0
"""Seconds after which an answer is given up."""


class Process:
    """Makes an object of a class in a new process and calls its methods there.

    Args:
        participant: The class; importable by its module's name.
        arguments: What it is made with.
    """

    def __init__(self, participant: type, *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, participant, arguments), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.result()
        except BaseException:
            self.close()
            raise

    def start(self, method: str, *arguments: object) -> None:
        """Start a call; :meth:`result` takes what it returns."""
        self._connection.send((method, arguments))

    def result(self) -> Any:
        """Wait for the call that was started."""
        if not self._connection.poll(PATIENCE):
            raise TimeoutError(f"{self._process.name} did not answer in {PATIENCE:g} s")
        value, failure = self._connection.recv()
        if failure is not None:
            raise RuntimeError(failure)
        return value

    def call(self, method: str, *arguments: object) -> Any:
        """Call a method and wait for what it returns."""
        self.start(method, *arguments)
        return self.result()

    def close(self) -> None:
        """End the process: in order, else by force."""
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve(connection: Connection, participant: type, arguments: tuple[object, ...]) -> None:
    os.dup2(2, 1)  # NIXL logs to standard output, which is for figures
    served: Any = None
    answer: tuple[Any, str | None]
    method = "__init__"
    while True:
        try:
            if served is None:
                served, value = participant(*arguments), None
            else:
                value = getattr(served, method)(*arguments)
            answer = value, None
        except Exception:  # whatever it is, the other side raises it
            answer = None, traceback.format_exc()
        connection.send(answer)
        try:
            method, arguments = connection.recv()
        except EOFError:
            break
    if served is not None:
        served.close()
