"""A real Redis (or Valkey) server for tests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from trunkline.errors import ConfigurationError
from trunkline.etcd.process import ServerProcess
from trunkline.etcd.server import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence


def redis_binaries() -> list[Path]:
    """Return every Redis and Valkey on PATH."""
    found = (shutil.which(name) for name in ("redis-server", "valkey-server"))
    return [Path(each) for each in found if each is not None]


class RedisServer(ServerProcess):
    """A Redis process on loopback with its own data, written as Redis does by default: not at once.

    Args:
        directory: Where its data and its log (``redis.log``) go; it is created.
        binary: The server to run; None for the first on PATH.
        arguments: More of its command-line arguments.

    Raises:
        ConfigurationError: There is none.
    """

    name = "redis"
    scheme = "redis"

    def __init__(self, directory: Path, *, binary: Path | None = None, arguments: Sequence[str] = ()) -> None:
        binaries = redis_binaries()
        if binary is None and not binaries:
            raise ConfigurationError("no redis-server or valkey-server on PATH (Debian: redis-server)")
        super().__init__(directory, free_port())
        self.binary = binary or binaries[0]
        self._arguments = tuple(arguments)

    @property
    def url(self) -> str:
        """The URL for clients, with the number of the database."""
        return f"{self.endpoint}/0"

    def command(self) -> list[str]:
        """Return the server with its arguments."""
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        return [str(self.binary), *settings, *self._arguments]
