"""The header of a safetensors file: which tensors lie where. Nothing of it is trusted.

Format and limits are those of safetensors 0.8 (its ``tensor.rs``): eight bytes of length (little-endian), JSON, then
the tensors' bytes, which must cover the rest of the file without gap or overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Annotated

import msgspec
from msgspec import Meta

from trunkline.errors import MetadataDecodeError
from trunkline.memory.dtype import DTYPES

LENGTH_SIZE = 8
MAX_HEADER_SIZE = 100_000_000
"""The reference's own limit."""

_METADATA = "__metadata__"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor in a file.

    Attributes:
        name: Its name.
        dtype: safetensors' name of the element type.
        shape: Elements along each axis.
        start: Offset of its first byte in the file.
        end: Offset behind its last byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**63 - 1)], ...], Meta(max_length=64)]
    data_offsets: tuple[Annotated[int, Meta(ge=0, le=2**63 - 1)], Annotated[int, Meta(ge=0, le=2**63 - 1)]]


# Made with the module, as those of presence records are.
_HEADER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENTRY = msgspec.json.Decoder(_Entry)


def parse_header(content: bytes | memoryview) -> list[StoredTensor]:
    """Return the tensors of a safetensors file, in the order of their bytes.

    Args:
        content: The whole file.

    Raises:
        MetadataDecodeError: It is not such a file, or its tensors don't cover its bytes exactly.
    """
    length = int.from_bytes(content[:LENGTH_SIZE], "little")
    if len(content) < LENGTH_SIZE or length > min(MAX_HEADER_SIZE, len(content) - LENGTH_SIZE):
        raise MetadataDecodeError(
            f"not a safetensors file: {len(content):,} bytes can't hold a header of {length:,}", field="length"
        )
    data = LENGTH_SIZE + length
    try:
        raw = _HEADER.decode(content[LENGTH_SIZE:data])
        entries = {name: _ENTRY.decode(text) for name, text in raw.items() if name != _METADATA}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MetadataDecodeError(f"bad safetensors header: {error}", field="header") from error
    tensors = []
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        if entry.data_offsets[0] != end or entry.data_offsets[1] < end:
            raise MetadataDecodeError(
                f"bad safetensors header: tensor {name[:64]!r} has offsets {entry.data_offsets} where one "
                f"must start at {end}",
                field="data_offsets",
            )
        start, end = entry.data_offsets
        element = DTYPES.get(entry.dtype)
        if element is None or prod(entry.shape) * element.bits != 8 * (end - start):
            raise MetadataDecodeError(
                f"bad safetensors header: tensor {name[:64]!r} is {entry.dtype[:32]}{list(entry.shape)} "
                f"in {end - start:,} bytes",
                field="shape",
            )
        tensors.append(StoredTensor(name, entry.dtype, entry.shape, data + start, data + end))
    if data + end != len(content):
        raise MetadataDecodeError(
            f"bad safetensors header: its tensors end at {data + end:,}, the file at {len(content):,}",
            field="data_offsets",
        )
    return tensors
