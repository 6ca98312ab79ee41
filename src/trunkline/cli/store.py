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
    given = _given(url, credentials)
    if given is not None:
        yield given
        return
    from trunkline.etcd.local import LocalEtcd

    with LocalEtcd.acquire() as local:
        typer.echo(f"No --store was given: using the etcd of this machine and user at {local.endpoint}", err=True)
        yield _of_this_machine(local.endpoint)


def require_store(url: str | None, credentials: Path | None = None) -> FoundStore:
    """Return the given store, else the etcd of this machine and user if one runs. Starts nothing.

    Raises:
        typer.BadParameter: There are credentials and no store to show them to.
        NoStoreError: There is none; says what to give.
    """
    given = _given(url, credentials)
    if given is not None:
        return given
    from trunkline.errors import NoStoreError
    from trunkline.etcd.local import running_endpoint

    endpoint = running_endpoint()
    if endpoint is None:
        raise NoStoreError(
            "there is no store to look at: give --store etcd://HOST:2379 or set NIXL_ETCD_ENDPOINTS (no etcd of this "
            "machine and user runs, and none is started to look at it)"
        )
    typer.echo(f"No --store was given: looking at the etcd of this machine and user at {endpoint}", err=True)
    return _of_this_machine(endpoint)


def _given(url: str | None, credentials: Path | None) -> FoundStore | None:
    if url is not None:
        return FoundStore(url, is_given=True, options={} if credentials is None else {"credentials": credentials})
    if credentials is not None:
        raise typer.BadParameter("for which store? Give --store as well", param_hint="--credentials")
    return None


def _of_this_machine(endpoint: str) -> FoundStore:
    return FoundStore(endpoint, is_given=False, options={"credentials": ""})
