from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from tests.standin.cufile import VARIANTS, linked, standing_in

from trunkline.backend.plugins.gds import GdsBackend, GdsMtBackend
from trunkline.testing.backend import BackendContract, Link

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cuFile is for Linux only")


@pytest.mark.parametrize("link", list(VARIANTS), indirect=True)
class TestGds(BackendContract):
    """Over the stand-in for libcufile, which also sees that nothing is left registered."""

    @pytest.fixture
    def link(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Link]:
        with standing_in(monkeypatch):
            # Two threads: with one for each piece there would be nothing to stop.
            backend = GdsBackend("agent") if request.param == "GDS" else GdsMtBackend("agent", thread_count=2)
            with linked(backend, tmp_path) as made:
                yield made
