"""Servers with users and roles, as `trunkline rbac` makes them."""

from __future__ import annotations

import shlex
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from trunkline.cli.rbac import commands
from trunkline.metadata.key import DEFAULT_NAMESPACE
from trunkline.metadata.role import Role
from trunkline.store import open_store
from trunkline.testing.etcd import EtcdServer, GuardedEtcd, etcd_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.store.contract import Store

PASSWORD = "of the user"
TOKEN_TTL = 1

USERS: dict[str, tuple[Role, str, tuple[str, ...]]] = {
    "agent": (Role.AGENT, "/prod", ()),
    "bound": (Role.AGENT, "/prod", ("decode-*", "so lo")),
    "observer": (Role.OBSERVER, "/prod", ()),
    "operator": (Role.OPERATOR, "/prod", ()),
    "nixl": (Role.NIXL, "/prod", ()),
    "dev": (Role.AGENT, "/dev", ()),
    "default": (Role.AGENT, DEFAULT_NAMESPACE, ("decode-*",)),
    "default nixl": (Role.NIXL, DEFAULT_NAMESPACE, ("decode-*",)),
}


class Guarded(GuardedEtcd):
    """A server where everybody of USERS has the role of that name."""

    def __init__(self, server: EtcdServer) -> None:
        super().__init__(server)
        self._opened = ExitStack()
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(self._add, USERS))
        self.enable({})

    def _add(self, user: str) -> None:
        role, namespace, names = USERS[user]
        added = shlex.join(["etcdctl", "user", "add", f"{user}:{PASSWORD}"])
        self.run("\n".join([added, *commands(role, namespace, names, [user])]))

    def open(self, user: str, endpoint: str | None = None) -> Store:
        """Open a store as one of the users; closed with this."""
        opened = open_store(endpoint or self.server.endpoint, username=user, password=PASSWORD)
        return self._opened.enter_context(opened)

    def close(self) -> None:
        self._opened.close()


@pytest.fixture(scope="module", params=etcd_binaries(), ids=lambda path: path.parent.name)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    arguments = (f"--auth-token-ttl={TOKEN_TTL}", "--bcrypt-cost=4")
    directory = tmp_path_factory.mktemp("etcd")
    with EtcdServer(directory, binary=request.param, arguments=arguments).start() as server:
        guarded = Guarded(server)
        yield guarded
        guarded.close()
