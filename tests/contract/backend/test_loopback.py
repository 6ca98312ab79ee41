from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.backend.plugins.loopback import LoopbackBackend
from trunkline.testing.backend import BackendContract, Link

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestLoopback(BackendContract):
    @pytest.fixture
    def link(self) -> Iterator[Link]:
        backend = LoopbackBackend("agent")
        yield Link(backend, backend, None)
        backend.close()
