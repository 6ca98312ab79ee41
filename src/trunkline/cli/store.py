"""Finding the store that a command uses."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from trunkline.store.contract import Store


class FoundStore(NamedTuple):
    """A store for one command.

    Attributes:
        url: Where it is.
        is_given: Whether the user named it, or the machine's own is used.
        options: What opening it takes besides.
    """

    url: str
    is_given: bool
    options: Mapping[str, Any] = {}

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        hosts = {urlsplit(part if "://" in part else f"//{part}").hostname for part in self.url.split(",")}
        return hosts <= {"127.0.0.1", "localhost", "::1"}

    def open(self) -> Store:
        """Open it; raises as :func:`trunkline.store.registry.open_store`."""
        from trunkline.store.registry import open_store

        return open_store(self.url, **self.options)


@contextmanager
def find_store(url: str | None, credentials: Path | None = None) -> Iterator[FoundStore]:
    """Yield the given store, else the etcd of this machine and user, started if need be.

    That one is shown no credentials: it has no users, and those of the environment are for another.

    Raises:
        typer.BadParameter: There are credentials and no store to show them to.
        ConfigurationError: There is no etcd to start.
        StoreUnavailableError: It did not start.
    """
    if url is not None:
        yield FoundStore(url, is_given=True, options={} if credentials is None else {"credentials": credentials})
        return
    if credentials is not None:
        raise typer.BadParameter("for which store? Give --store as well", param_hint="--credentials")
    from trunkline.etcd.local import LocalEtcd

    with LocalEtcd.acquire() as local:
        typer.echo(f"No --store was given: using the etcd of this machine and user at {local.endpoint}", err=True)
        yield FoundStore(local.endpoint, is_given=False, options={"credentials": ""})
