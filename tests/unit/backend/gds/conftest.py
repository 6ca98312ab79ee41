from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from tests.standin.cufile import Standin, standing_in

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    if sys.platform != "linux":
        pytest.skip("cuFile is for Linux only")
    with standing_in(monkeypatch) as made:
        yield made
