"""Checks remote keys before UCX sees them: it takes no lengths and trusts every byte (1.22, fuzzed)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trunkline.errors import MetadataDecodeError
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from trunkline.metadata.model import RemoteKeys

MEMORY_TYPES = {MemoryKind.DRAM: 0, MemoryKind.VRAM: 1}
"""UCX's ``ucs_memory_type_t`` by kind of memory: host and CUDA."""


def check_remote_keys(peer: str, kind: MemoryKind, keys: RemoteKeys) -> None:
    """Refuse keys that can't be read to exactly their end or are of another kind of memory.

    Raises:
        MetadataDecodeError: Names the first bad key.
    """
    from trunkline.backend.plugins.ucx._native import first_bad_key

    row = first_bad_key(np.frombuffer(keys.data, np.uint8), keys.offset, keys.size, MEMORY_TYPES[kind])
    if row is not None:
        raise MetadataDecodeError(
            f"peer {peer!r}: remote key {row} of {len(keys)} ({int(keys.size[row])} bytes at offset "
            f"{int(keys.offset[row])}) is not a UCX key for {kind.name} memory",
            field="remote key",
            offset=int(keys.offset[row]),
            peer=peer,
            row=row,
        )
