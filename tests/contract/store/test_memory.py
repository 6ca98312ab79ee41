from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.store.plugins.memory import open_store
from trunkline.testing.clock import FakeClock
from trunkline.testing.store import StoreContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.store.contract import Store


class TestMemoryStore(StoreContract):
    clock: FakeClock

    @pytest.fixture(autouse=True)
    def set_clock(self) -> None:
        self.clock = FakeClock()

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        with open_store("memory://contract", clock=self.clock) as store:
            yield store

    @pytest.fixture
    def other_store(self) -> Iterator[Store]:
        with open_store("memory://contract", clock=self.clock) as store:
            yield store

    @pytest.fixture
    def prefix(self) -> str:
        return "/contract/"

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
