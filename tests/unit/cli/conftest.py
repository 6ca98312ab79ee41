from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def keep_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that run within the test's process leave its signals alone."""

    def ignore(*_: Any) -> None:
        pass

    monkeypatch.setattr("trunkline.cli.main.signal.signal", ignore)
