"""Checks of bytes from peers before UCX sees them: it trusts them and takes no lengths (UCX 1.22, fuzzed)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trunkline.errors import MetadataDecodeError
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from trunkline.metadata.model import RemoteKeys

LARGEST_ADDRESS = 32 << 10
"""Bytes of a worker address; seen: 77 with TCP alone, 213 by default. UCX gets it with zeros up to 64 KiB."""

MEMORY_TYPES = {MemoryKind.DRAM: 0, MemoryKind.VRAM: 1}
"""UCX's ``ucs_memory_type_t`` by kind of memory: host and CUDA."""


def check_worker_address(peer: str, address: bytes) -> None:
    """Refuse what UCX would abort on.

    Raises:
        MetadataDecodeError: The size or the address version (low half of byte 0: 0 or 1) is impossible.
    """
    if not 1 < len(address) <= LARGEST_ADDRESS:
        raise MetadataDecodeError(
            f"peer {peer!r}: its UCX worker address is {len(address)} bytes; 2 to {LARGEST_ADDRESS} are possible",
            field="worker address",
            peer=peer,
        )
    if address[0] & 0xF > 1:
        raise MetadataDecodeError(
            f"peer {peer!r}: its UCX worker address has version {address[0] & 0xF}; 0 and 1 are known",
            field="worker address",
            peer=peer,
        )


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
