"""A Redis to break for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.testing.redis import RedisServer, redis_binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts a server with the arguments given; it is ended after the test."""
    if not redis_binaries():
        pytest.skip("no redis-server or valkey-server on PATH")
    servers: list[RedisServer] = []

    def start(*arguments: str) -> RedisServer:
        servers.append(RedisServer(tmp_path / f"redis-{len(servers)}", arguments=arguments))
        return servers[-1].start()

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(start_server: Callable[..., RedisServer]) -> RedisServer:
    """A server as it is by default: it writes to disk now and then only."""
    return start_server()
