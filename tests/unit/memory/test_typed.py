from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trunkline.errors import UnsupportedBufferError
from trunkline.memory.buffer import Buffer, buffer_of
from trunkline.memory.kind import MemoryKind
from trunkline.memory.typed import typed


def test_the_memory_stays_and_gets_a_type_and_shape() -> None:
    source = np.zeros((4, 6), np.uint16)
    buffer = typed(source, "BF16", [2, 12])
    assert buffer == Buffer(MemoryKind.DRAM, source.ctypes.data, 48, 0, "BF16", (2, 12))
    assert buffer.owner is source
    assert buffer_of(buffer) is buffer


def test_elements_smaller_than_a_byte_count_by_their_bits() -> None:
    assert typed(bytes(6), "F4", (3, 4)).shape == (3, 4)
    assert typed(bytes(6), "F4", (3, 4)).readonly


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [
        ("bfloat16", (4,), "unknown element type 'bfloat16'; safetensors has BOOL"),
        ("BF16", (3,), r"BF16\[3\] takes 6 bytes, but the memory has 8"),
        ("BF16", (-2, -2), "but the memory has 8"),
        ("F32", (), "takes 4 bytes"),
    ],
)
def test_refuses(dtype: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UnsupportedBufferError, match=message):
        typed(bytearray(8), dtype, shape)


@pytest.mark.parametrize("source", ["text", np.zeros((4, 4)).T[:, :2]])
def test_refuses_what_can_not_be_registered(source: Any) -> None:
    with pytest.raises(UnsupportedBufferError):
        typed(source, "U8", (8,))
