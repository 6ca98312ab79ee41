from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import MetadataDecodeError
from trunkline.offer.safetensors import StoredTensor, parse_header


def stored(header: dict[str, Any], size: int) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


WEIGHTS: dict[str, Any] = {"dtype": "BF16", "shape": [2, 3], "data_offsets": [4, 16]}
BIAS: dict[str, Any] = {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}


def test_the_tensors_come_in_the_order_of_their_bytes() -> None:
    content = stored({"__metadata__": {"format": "pt"}, "weights": WEIGHTS, "bias": BIAS}, 16)
    data = len(content) - 16
    assert parse_header(content) == [
        StoredTensor("bias", "F32", (), data, data + 4),
        StoredTensor("weights", "BF16", (2, 3), data + 4, data + 16),
    ]


def test_elements_smaller_than_a_byte() -> None:
    content = stored({"packed": {"dtype": "F4", "shape": [6], "data_offsets": [0, 3]}}, 3)
    assert parse_header(memoryview(content))[0].shape == (6,)


def test_a_file_without_tensors() -> None:
    assert parse_header(stored({}, 0)) == []


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({"a": BIAS}, 3),  # ends behind the file
        ({"a": BIAS}, 5),  # bytes that belong to nobody
        ({"a": WEIGHTS}, 16),  # a gap before it
        ({"a": BIAS, "b": BIAS}, 4),  # two in one place
        ({"a": {**BIAS, "data_offsets": [4, 0]}}, 4),  # backwards
        ({"a": {**BIAS, "data_offsets": [-4, 0]}}, 4),
        ({"a": {**BIAS, "dtype": "object"}}, 4),
        ({"a": {**BIAS, "shape": [2]}}, 4),
        ({"a": {**BIAS, "shape": [2**62, 4, 4]}}, 4),
        ({"a": {**BIAS, "shape": [1] * 65}}, 4),
        ({"a": {**BIAS, "shape": 1}}, 4),
        ({"a": []}, 0),
    ],
)
def test_headers_that_do_not_fit_are_refused(header: dict[str, Any], size: int) -> None:
    with pytest.raises(MetadataDecodeError):
        parse_header(stored(header, size))


@pytest.mark.parametrize(
    "content",
    [b"", b"1234567", b"\xff" * 8, (9).to_bytes(8, "little") + b"{}", (2**63).to_bytes(8, "little") + b"{}"],
)
def test_lengths_that_do_not_fit_are_refused(content: bytes) -> None:
    with pytest.raises(MetadataDecodeError, match="not a safetensors file"):
        parse_header(content)


@given(position=st.integers(min_value=0), value=st.integers(0, 255))
def test_a_damaged_file_is_refused_or_stays_within_its_bytes(position: int, value: int) -> None:
    content = bytearray(stored({"weights": WEIGHTS, "bias": BIAS}, 16))
    content[position % len(content)] = value
    try:
        tensors = parse_header(bytes(content))
    except MetadataDecodeError:
        return
    assert all(0 <= tensor.start <= tensor.end <= len(content) for tensor in tensors)


def test_deeply_nested_json_is_refused() -> None:
    text = b'{"a":' * 100_000
    with pytest.raises(MetadataDecodeError):
        parse_header(len(text).to_bytes(8, "little") + text)
