"""Workers of one machine, and an etcd for them, started for one run."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from trunkline.bench.options import DEFAULTS
from trunkline.etcd.keeper import Keeper
from trunkline.etcd.server import EtcdServer, find_binary

if TYPE_CHECKING:
    from types import TracebackType

    from trunkline.bench.options import Options

PATIENCE = 10.0
"""Seconds for the others to end by themselves."""

PATIENCE_AFTER_FAILURE = 2.0
"""As many when the run broke off: they have been told, and one that is stopped would not end."""

_QUICK_ELECTION = ("--heartbeat-interval=10", "--election-timeout=100")
"""An etcd alone waits for this long before it elects itself."""

COMMAND = (sys.executable, "-P", "-m", "trunkline", "bench")  # -P: not what lies in the working directory
"""What is run for each worker, before its options."""

_OF_RANK_0 = ("local", "csv", "json", "report")


class LocalWorkers:
    """All workers of a run but rank 0, which is this process, and their etcd. A context manager: none outlives it, nor
    this process, however it ends.

    They are started before the etcd serves, and wait for it; meanwhile this process may get ready, too.

    Args:
        options: The run's.
        command: What is run for each, before the options.
    """

    def __init__(self, options: Options, command: tuple[str, ...] = COMMAND) -> None:
        self._options = options
        self._command = command
        binary = find_binary()
        self._keeper = Keeper("trunkline-bench-")
        self._server = EtcdServer(self._keeper.directory, binary=binary, arguments=_QUICK_ELECTION)
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def endpoint(self) -> str:
        """The etcd's."""
        return self._server.endpoint

    def wait_ready(self) -> None:
        """Wait until the etcd serves.

        Raises:
            StoreUnavailableError: It does not.
        """
        self._server.wait_ready()

    def __enter__(self) -> Self:
        # What opens another etcd is not for this one.
        environment = {name: text for name, text in os.environ.items() if not name.startswith("ETCDCTL_")}
        environment.pop("TRUNKLINE_STORE_CREDENTIALS", None)
        try:
            for rank in range(1, self._options.size):
                options = dataclasses.replace(
                    self._options,
                    **{name: DEFAULTS[name] for name in _OF_RANK_0},
                    workers=self._options.size,
                    rank=rank,
                    etcd_endpoints=self.endpoint,
                    quiet=True,
                )
                arguments = [*self._command, *command_line(options)]
                self._processes.append(
                    subprocess.Popen(
                        arguments,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        env=environment,
                        start_new_session=True,  # a Ctrl-C at the terminal is for us, and the others are told
                    )
                )
                self._keeper.watch(self._processes[-1].pid)
            self._server.start(timeout=0, keeper=self._keeper)
        except BaseException:
            self._end(0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(PATIENCE if error is None else PATIENCE_AFTER_FAILURE)

    def _end(self, patience: float) -> None:
        try:
            for process in self._processes:
                process.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        finally:
            for process in self._processes:
                process.kill()
                process.wait()
            self._server.close()
            self._keeper.close()

    def __repr__(self) -> str:
        return f"<LocalWorkers at {self.endpoint}, pids {[process.pid for process in self._processes]}>"


def command_line(options: Options) -> list[str]:
    """Return options as arguments of the command; secrets, which others could read there, are left out."""
    arguments = []
    for name, value in options.given().items():
        flag = "--" + name.replace("_", "-")
        arguments += [flag] if value is True else [flag, str(value)]
    return arguments
