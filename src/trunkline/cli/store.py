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
