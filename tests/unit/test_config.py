from __future__ import annotations

import pytest

from trunkline.config import DEFAULT_TTL, Settings
from trunkline.errors import ConfigurationError


def test_the_environment_is_read_under_known_names() -> None:
    settings = Settings.from_environment(
        {"NIXL_ETCD_ENDPOINTS": "http://h:1", "NIXL_ETCD_NAMESPACE": "/prod", "TRUNKLINE_SESSION_TTL": "2.5"}
    )
    assert settings == Settings("http://h:1", "/prod", 2.5)


def test_unset_and_empty_are_the_same() -> None:
    empty = {"NIXL_ETCD_ENDPOINTS": "", "NIXL_ETCD_NAMESPACE": "", "TRUNKLINE_SESSION_TTL": ""}
    assert Settings.from_environment(empty) == Settings.from_environment({}) == Settings(None, None, DEFAULT_TTL)


def test_nonsense_names_the_variable() -> None:
    with pytest.raises(ConfigurationError, match="TRUNKLINE_SESSION_TTL='soon'"):
        Settings.from_environment({"TRUNKLINE_SESSION_TTL": "soon"})
