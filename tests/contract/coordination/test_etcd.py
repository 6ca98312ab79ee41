from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.contract.coordination.collective import CollectiveContract
from tests.contract.coordination.membership import MembershipContract

from trunkline.store import open_store as open_any
from trunkline.testing.etcd import EtcdServer, etcd_binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trunkline.store.contract import Store


@pytest.fixture(scope="module", params=etcd_binaries(), ids=lambda path: path.parent.name)
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary: Path = request.param
    with EtcdServer(tmp_path_factory.mktemp("etcd"), binary=binary).start() as server:
        yield server.endpoint


class TestGroupOnEtcd(CollectiveContract, MembershipContract):
    @pytest.fixture
    def open_store(self, endpoint: str) -> Callable[[], Store]:
        return partial(open_any, endpoint)
