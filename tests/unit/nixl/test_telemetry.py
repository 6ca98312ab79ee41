"""Whether telemetry is captured: what the environment says goes before what an agent's config asks for."""

from __future__ import annotations

import pytest

from trunkline.nixl.exception import nixlInvalidParamError
from trunkline.nixl.telemetry import is_captured


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (None, None),
        *((word, True) for word in ("y", "YES", "on", "1", "True")),
        *((word, False) for word in ("n", "0")),
    ],
)
def test_the_environment_goes_first(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, expected: bool | None, asked: bool
) -> None:
    monkeypatch.delenv("NIXL_TELEMETRY_ENABLE", raising=False)
    if setting is not None:
        monkeypatch.setenv("NIXL_TELEMETRY_ENABLE", setting)
    assert is_captured(asked) is (asked if expected is None else expected)


@pytest.mark.parametrize("setting", ["", "t", "junk"])
def test_neither_yes_nor_no_is_an_error(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("NIXL_TELEMETRY_ENABLE", setting)
    with pytest.raises(nixlInvalidParamError, match="neither yes"):
        is_captured(True)
