from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given

from trunkline.errors import ConfigurationError, MetadataDecodeError
from trunkline.memory.kind import MemoryKind
from trunkline.metadata import catalog as catalog_module
from trunkline.metadata.catalog import FORMAT, Catalog, TensorEntry, decode_catalog, encode_catalog, item_bits
from trunkline.testing.strategies import catalogs

ENTRY = {"name": "kv", "kind": 0, "dtype": "BF16", "shape": [2, 3], "address": 4096, "nbytes": 12, "device": 0}


def json_of(*tensors: Any, **fields: Any) -> bytes:
    return msgspec.json.encode({"format": 1, "min_reader": 1, "tensors": tensors, **fields})


@given(catalogs())
def test_everything_comes_back(catalog: Catalog) -> None:
    assert decode_catalog(encode_catalog(catalog)) == catalog


def test_unknown_fields_are_ignored_and_absent_ones_empty() -> None:
    assert decode_catalog(json_of({**ENTRY, "new": [1]}, extra={"a": 1})).tensors[0].name == "kv"
    assert decode_catalog(b'{"format":1,"min_reader":1}') == Catalog()


def test_sizes_of_elements() -> None:
    assert (item_bits("BF16"), item_bits("F4"), item_bits(None)) == (16, 4, 8)


@pytest.mark.parametrize("shape", [[], [1] * 64])
def test_scalars_and_many_axes(shape: list[int]) -> None:
    assert decode_catalog(json_of({**ENTRY, "shape": shape, "nbytes": 2})).tensors[0].shape == tuple(shape)


def test_elements_smaller_than_a_byte() -> None:
    assert decode_catalog(json_of({**ENTRY, "dtype": "F4", "shape": [2, 4], "nbytes": 4})).tensors[0].dtype == "F4"
    with pytest.raises(MetadataDecodeError):
        decode_catalog(json_of({**ENTRY, "dtype": "F4", "shape": [3], "nbytes": 1}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "length >= 1"),
        ({"name": "x" * 1025}, "length <= 1024"),
        ({"name": 5}, "Expected `str`"),
        ({"kind": 5}, "Invalid enum value 5"),
        ({"dtype": "float32"}, "unknown dtype 'float32'"),
        ({"dtype": "O"}, "unknown dtype"),
        ({"shape": [2, 3, 1, 1, 2]}, r"12 bytes, which does not fit shape \(2, 3, 1, 1, 2\)"),
        ({"shape": [2, -3]}, "`int` >= 0"),
        ({"shape": [2**62, 2**62, 2**62]}, "does not fit shape"),
        ({"shape": [2**32, 2**32]}, "does not fit shape"),  # 2^65 bytes: 0 in 64 bits
        ({"shape": [0], "nbytes": 0}, "0 bytes"),
        ({"shape": [1] * 65}, "length <= 64"),
        ({"shape": [2.0, 3]}, "Expected `int`"),
        ({"nbytes": 2**63}, "`int` <= 9223372036854775807"),
        ({"address": -1}, "`int` >= 0"),
        ({"address": 2**64 - 12}, "no possible place"),
        ({"address": 2**64}, "no possible place"),
        ({"device": 2**64}, "no possible place"),
    ],
)
def test_refuses_tensors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(MetadataDecodeError, match=message):
        decode_catalog(_json({**ENTRY, **change}))


def _json(entry: dict[str, Any]) -> bytes:
    import json

    return json.dumps({"format": 1, "min_reader": 1, "tensors": [entry]}).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b"\xff", "malformed"),
        (json_of(ENTRY) + b" x", "trailing"),
        (b"[" * 100_000, "Expected `object`"),
        (b'{"format":1,"min_reader":1,"x":' + b"[" * 100_000, "recursion"),
        (b'{"tensors":[],"format":1}', "missing required field `min_reader`"),
        (json_of(ENTRY, ENTRY), "two tensors have one name"),
        (json_of(ENTRY, groups={"kv": ["kv"]}), "both a group and a tensor"),
        (json_of(ENTRY, groups={"g": ["kv", "kv"]}), "group 'g' names a tensor twice"),
        (json_of(ENTRY, groups={"g": ["other"]}), "group 'g'"),
        (json_of(ENTRY, groups={"g": []}), "length >= 1"),
        (json_of(min_reader=FORMAT + 1, groups=7), "for readers of format 2 and up; this is 1: update trunkline"),
        (b'{"format":1,"min_reader":1,"tensors":[{"name":"\xff"}]}', "can't decode byte"),
    ],
)
def test_refuses(data: bytes, message: str) -> None:
    with pytest.raises(MetadataDecodeError, match=message):
        decode_catalog(data)


def test_refuses_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "MAX_BYTES", 10)
    with pytest.raises(MetadataDecodeError, match="at most 10 are read"):
        decode_catalog(json_of(ENTRY))


@pytest.mark.parametrize(
    "catalog",
    [
        Catalog((TensorEntry("kv", MemoryKind.DRAM, "BF16", (2, 3), 4096, 13, 0),)),
        Catalog((TensorEntry("\ud800", MemoryKind.DRAM, None, (2,), 4096, 2, 0),)),
        Catalog(groups={"g": ("a",)}),
    ],
)
def test_what_could_not_be_read_is_not_written(catalog: Catalog) -> None:
    with pytest.raises(ConfigurationError, match="these tensors can't be offered"):
        encode_catalog(catalog)
