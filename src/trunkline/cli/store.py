"""Finding the store that a command uses."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator


class FoundStore(NamedTuple):
    """A store for one command.

    Attributes:
        url: Where it is.
        is_given: Whether the user named it, or the machine's own is used.
    """

    url: str
    is_given: bool

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        hosts = {urlsplit(part if "://" in part else f"//{part}").hostname for part in self.url.split(",")}
        return hosts <= {"127.0.0.1", "localhost", "::1"}


@contextmanager
def find_store(url: str | None) -> Iterator[FoundStore]:
    """Yield the given store, else the etcd of this machine and user, started if need be.

    Raises:
        ConfigurationError: There is no etcd to start.
        StoreUnavailableError: It did not start.
    """
    if url is not None:
        yield FoundStore(url, is_given=True)
        return
    from trunkline.etcd.local import LocalEtcd

    with LocalEtcd.acquire() as local:
        typer.echo(f"No --store was given: using the etcd of this machine and user at {local.endpoint}", err=True)
        yield FoundStore(local.endpoint, is_given=False)


def require_store(url: str | None) -> str:
    """Return the given store, else the etcd of this machine and user if one runs. Starts nothing.

    Raises:
        NoStoreError: There is none; says what to give.
    """
    if url is not None:
        return url
    from trunkline.errors import NoStoreError
    from trunkline.etcd.local import running_endpoint

    endpoint = running_endpoint()
    if endpoint is None:
        raise NoStoreError(
            "there is no store to look at: give --store etcd://HOST:2379 or set NIXL_ETCD_ENDPOINTS (no etcd of this "
            "machine and user runs, and none is started to look at it)"
        )
    typer.echo(f"No --store was given: looking at the etcd of this machine and user at {endpoint}", err=True)
    return endpoint
