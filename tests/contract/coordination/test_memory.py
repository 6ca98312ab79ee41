from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.contract.coordination.collective import CollectiveContract
from tests.contract.coordination.membership import MembershipContract

from trunkline.store import open_store as open_any

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.store.contract import Store


class TestGroupInMemory(CollectiveContract, MembershipContract):
    @pytest.fixture
    def open_store(self) -> Callable[[], Store]:
        return partial(open_any, f"memory://{uuid.uuid4().hex}")
