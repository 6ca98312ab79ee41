from __future__ import annotations

import socket

import pytest

from trunkline.cli.offer import unique_name
from trunkline.metadata.key import is_agent_name


@pytest.mark.parametrize("host", ["node-1.example.org", "h/o/s/t", "", "x" * 300, "héß"])
def test_takers_have_names_of_their_own(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert is_agent_name(unique_name("take"))
    assert unique_name("take") != unique_name("take")
