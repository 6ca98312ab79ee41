from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from trunkline.errors import ConfigurationError
from trunkline.store import open_store, registry
from trunkline.store.plugins.memory.store import MemoryStore


def test_a_memory_store_is_found_by_its_scheme() -> None:
    for url in ("memory://registry", "MEMORY://registry"):
        with open_store(url) as store:
            assert isinstance(store, MemoryStore)
            assert store.url == "memory://registry"


@pytest.mark.parametrize(
    "url",
    [
        "etcd://127.0.0.1:1,127.0.0.1:2",
        "http://127.0.0.1:1,http://127.0.0.1:2",
        "127.0.0.1:1,127.0.0.1:2",
    ],
)
def test_all_ways_to_name_etcd_lead_to_it(url: str) -> None:
    with open_store(url) as store:  # sends nothing
        assert type(store).__name__ == "EtcdStore"
        assert "127.0.0.1:2" in store.url


def test_an_unknown_scheme_names_the_known_ones_and_no_password() -> None:
    with pytest.raises(ConfigurationError, match=r"zookeeper://; known: .*etcd.*memory.*redis") as caught:
        open_store("zookeeper://user:secret@host")
    assert "secret" not in str(caught.value)


def test_options_reach_the_plugin() -> None:
    with pytest.raises(ConfigurationError, match=r"memory:// .*'colour'"):
        open_store("memory://registry", colour="blue")
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml"):
        open_store("etcd://127.0.0.1:1", credentials="nowhere.toml")


def test_plugins_of_other_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("paper", "tests.unit.store.test_registry:open_paper", "trunkline.stores"),
        EntryPoint("torn", "no.such.module:open_store", "trunkline.stores"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda *, group: points)
    monkeypatch.setattr(EntryPoint, "load", _load)
    assert registry.open_store("paper://a", pages=3) == ("paper://a", {"pages": 3})  # type: ignore[comparison-overlap]
    with pytest.raises(ConfigurationError, match=r"no\.such\.module") as caught:
        open_store("torn://a")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    with pytest.raises(ConfigurationError, match="paper"):
        open_store("other://a")


def _load(point: EntryPoint) -> Any:
    if point.name == "torn":
        raise ModuleNotFoundError(point.value)
    return lambda url, **options: (url, options)


def test_finding_a_store_loads_neither_grpc_nor_numpy() -> None:
    code = (
        "import sys, trunkline.store, trunkline.directory; trunkline.store.open_store('memory://a').close(); "
        "print([name for name in ('grpc', 'numpy', 'google.protobuf') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
