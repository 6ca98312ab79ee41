from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.inspection.conftest import NAMESPACE, blob

from trunkline.errors import AgentNotFoundError, ConfigurationError
from trunkline.inspection import detail as module
from trunkline.inspection.detail import AgentDetail, read_detail
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.catalog import Catalog, TensorEntry, encode_catalog

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.directory import Directory
    from trunkline.store.contract import Store


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LABEL_TIMEOUT", 0.0)


def show(store: Store, name: str) -> AgentDetail:
    return read_detail(store, NAMESPACE, name, timeout=5)


def test_all_that_an_agent_published(store: Store, directory: Directory) -> None:
    tensor = TensorEntry("kv", MemoryKind.DRAM, "U8", (64,), 4096, 64, 0)
    with directory.open_publisher("a", incarnation="1" * 32) as publisher:
        publisher.publish(blob("a", 64, 7), catalog=encode_catalog(Catalog((tensor,))))
        revision = publisher.publish(blob("a", 5), label="part")
        found = show(store, "a")
    parts = {label.label: label for label in found.labels}
    assert set(parts) == {"metadata", "part"}
    assert parts["part"].revision == revision
    metadata = parts["metadata"].metadata
    assert metadata is not None
    assert metadata.sections[0].segments[:, 1].tolist() == [64, 7]
    assert found.catalog == Catalog((tensor,))
    assert not any((found.catalog_flaw, parts["part"].flaw, found.elsewhere))
    assert found.overview.memory == {"DRAM": 64 + 7 + 5}
    assert {str(key.kind) for key in found.keys} == {"presence", "catalog", "marker", "label"}


def test_one_of_nixls_own(store: Store, put: Callable[..., int]) -> None:
    put(f"{NAMESPACE}/n[0]/")
    put(f"{NAMESPACE}/n[0]/metadata", blob("n[0]", 9))
    put(f"{NAMESPACE}/n0/metadata", blob("n0", 1))
    found = show(store, "n[0]")
    assert found.overview.is_nixl
    assert found.overview.memory == {"DRAM": 9}
    assert found.catalog is None


@pytest.mark.parametrize(
    ("value", "flaw"), [(b"nonsense", "field 'magic'"), (blob("b"), "metadata of agent 'b'")], ids=["bytes", "name"]
)
def test_what_is_wrong_with_metadata_is_told(store: Store, put: Callable[..., int], value: bytes, flaw: str) -> None:
    put(f"{NAMESPACE}/a/metadata", value)
    (label,) = show(store, "a").labels
    assert flaw in label.flaw
    assert label.size == len(value)


def test_keys_that_do_not_fit_their_record_are_told(
    store: Store, directory: Directory, put: Callable[..., int]
) -> None:
    with directory.open_publisher("a", incarnation="1" * 32) as publisher:
        publisher.publish(blob("a", 1), catalog=b"nonsense")
        found = show(store, "a")
        assert "bad catalog" in found.catalog_flaw
        put(f"{NAMESPACE}/a/metadata", blob("a", 2))
        (label,) = show(store, "a").labels
    assert label.metadata is None
    assert "does not match its agent's record" in label.flaw


def test_nobody_of_that_name(store: Store, put: Callable[..., int]) -> None:
    put(f"{NAMESPACE}/decode-0/metadata", blob("decode-0"))
    with pytest.raises(AgentNotFoundError, match=r"no agent 'decode-1' under /prod .*Similar names: 'decode-0'"):
        show(store, "decode-1")
    with pytest.raises(ConfigurationError):
        show(store, "a/b")


def test_the_same_name_under_both_forms_of_the_default_namespace(store: Store, put: Callable[..., int]) -> None:
    put("/nixl/agents/a/metadata", blob("a", 1))
    put("/nixl/agents//a/metadata", blob("a", 2))
    found = read_detail(store, "/nixl/agents", "a", timeout=5)
    assert found.overview.namespace == "/nixl/agents/"
    assert found.elsewhere == ("/nixl/agents",)
    assert found.overview.memory == {"DRAM": 2}
