"""How long an agent's keys outlive it: the argument, else the environment, else 30 s."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline import Agent, open_store
from trunkline.errors import ConfigurationError
from trunkline.metadata.key import DEFAULT_NAMESPACE, MetadataKey
from trunkline.metadata.presence import decode_presence

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize(
    ("argument", "environment", "ttl"), [(None, {}, 30), (None, {"TRUNKLINE_SESSION_TTL": "7"}, 7), (4, {}, 4)]
)
def test_the_record_says_it(
    store: str, argument: float | None, environment: Mapping[str, str], ttl: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRUNKLINE_SESSION_TTL", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with open_store(store) as opened, Agent("a", store=opened, devices="lo", ttl=argument):
        entry, _ = opened.get(MetadataKey(DEFAULT_NAMESPACE, "a").presence, timeout=1)
        assert entry is not None
        assert decode_presence(entry.value).ttl == ttl


@pytest.mark.parametrize("ttl", [0, 1.9, -1, 86_401, float("nan"), float("inf")])
def test_what_no_lease_can_have_is_refused(store: str, ttl: float) -> None:
    with pytest.raises(ConfigurationError, match=f"ttl={ttl}"):
        Agent("a", store=store, devices="lo", ttl=ttl)
