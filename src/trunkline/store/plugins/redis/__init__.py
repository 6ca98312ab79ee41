"""``redis://``: the store in Redis or Valkey. Weaker than etcd: see docs/redis.md before you choose it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from trunkline.errors import ConfigurationError
from trunkline.store.plugins.redis.config import RedisConfig

if TYPE_CHECKING:
    from pathlib import Path

    from trunkline.store.plugins.redis.store import RedisStore


def open_store(
    url: str,
    *,
    username: str | None = None,
    password: str | None = None,
    ca: str | Path | None = None,
    cert: str | Path | None = None,
    key: str | Path | None = None,
    credentials: str | Path | None = None,
) -> RedisStore:
    """Open the store at ``redis://host:port/database`` (``rediss://`` with TLS); sends nothing yet.

    Args and errors are those of :meth:`trunkline.store.plugins.redis.config.RedisConfig.parse`.

    Raises:
        ConfigurationError: The ``redis`` package is missing; or as above.
    """
    config = RedisConfig.parse(
        url,
        username=username,
        password=password,
        ca=ca,
        cert=cert,
        key=key,
        credentials=credentials,
        environment=os.environ,
    )
    try:
        from trunkline.store.plugins.redis.store import RedisStore
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise ConfigurationError(
            f"{config.url} needs the Python package redis: pip install 'trunkline[redis]'", url=config.url
        ) from error
    return RedisStore.open(config)
