"""Memory with an element type that its object can't express."""

from __future__ import annotations

import dataclasses
from math import prod
from typing import TYPE_CHECKING, Any

from trunkline.errors import UnsupportedBufferError
from trunkline.memory.buffer import Buffer, buffer_of
from trunkline.memory.dtype import DTYPES

if TYPE_CHECKING:
    from collections.abc import Sequence


def typed(memory: Any, dtype: str, shape: Sequence[int]) -> Buffer:
    """Say what elements some memory holds; register the result in its place. Nothing is copied or converted.

    numpy has no bfloat16 and no 8-bit floats: this is how its arrays (or plain bytes) get such a type in the catalog.

    Args:
        memory: Anything that ``Agent.register`` takes as one buffer.
        dtype: safetensors' name of the element type (``BF16``).
        shape: Elements along each axis; their size must be that of the memory.

    Raises:
        UnsupportedBufferError: The memory can't be used, the name is unknown, or the sizes differ.
    """
    buffer = buffer_of(memory)
    if dtype not in DTYPES:
        raise UnsupportedBufferError(f"unknown element type {dtype!r}; safetensors has {', '.join(DTYPES)}")
    bits = prod(shape) * DTYPES[dtype].bits
    if bits != 8 * buffer.nbytes or any(count < 0 for count in shape):
        raise UnsupportedBufferError(
            f"{dtype}{list(shape)} takes {bits / 8:g} bytes, but the memory has {buffer.nbytes}",
            dtype=dtype,
            nbytes=buffer.nbytes,
        )
    return dataclasses.replace(buffer, dtype=dtype, shape=tuple(shape))
