"""A real Redis (or Valkey) server for tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from trunkline.errors import ConfigurationError, StoreUnavailableError
from trunkline.etcd.server import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType


def redis_binaries() -> list[Path]:
    """Return every Redis and Valkey on PATH."""
    found = (shutil.which(name) for name in ("redis-server", "valkey-server"))
    return [Path(each) for each in found if each is not None]


class RedisServer:
    """A Redis process on loopback with its own data, written as Redis does by default: not at once.

    Args:
        directory: Where its data and its log (``redis.log``) go; it is created.
        binary: The server to run; None for the first on PATH.
        arguments: More of its command-line arguments.

    Raises:
        ConfigurationError: There is none.
    """

    def __init__(self, directory: Path, *, binary: Path | None = None, arguments: Sequence[str] = ()) -> None:
        binaries = redis_binaries()
        if binary is None and not binaries:
            raise ConfigurationError("no redis-server or valkey-server on PATH (Debian: redis-server)")
        self.directory = directory
        self.binary = binary or binaries[0]
        self.port = free_port()
        self._arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, timeout: float = 30.0) -> Self:
        """Start it and wait until it takes connections.

        Raises:
            StoreUnavailableError: It ended, or takes none after ``timeout`` seconds; quotes its log.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        log_path = self.directory / "redis.log"
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.binary), *settings, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        began = time.monotonic()
        while not self._accepts():
            elapsed = time.monotonic() - began
            if self._process.poll() is not None or elapsed > timeout:
                self.kill()
                raise StoreUnavailableError(
                    f"{self.binary} at {self.url} does not serve after {elapsed:.1f} s; "
                    f"its log ends: {log_path.read_text('utf-8', 'replace')[-500:]}",
                    url=self.url,
                    elapsed=elapsed,
                )
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End it in order (SIGTERM), by force after 10 s. Idempotent."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False
