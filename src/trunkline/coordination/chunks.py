"""Values too large for one key: their chunks are written first, then the parcel that says where they lie. Nobody
watches chunks; those who want them read them.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from trunkline.coordination.record import CHUNK_SIZE, Chunks
from trunkline.errors import MetadataDecodeError
from trunkline.store.contract import NO_LEASE, Get, Put, Transaction

if TYPE_CHECKING:
    from trunkline.clock import Deadline
    from trunkline.coordination.link import Link

_READ_AT_ONCE = 4


def write_chunks(
    link: Link, data: bytes, deadline: Deadline, *, lease: int = NO_LEASE, peer: int | None = None
) -> Chunks:
    """Write a content in chunks; return where.

    Args:
        link: Whose.
        data: The content.
        deadline: When to give up.
        lease: What they hang on; by default this worker's.
        peer: The worker without whom they need not be written.

    Raises:
        As :meth:`Link.write`.
    """
    chunks = Chunks(secrets.token_hex(16), len(data))
    prefix = link.key.chunks(chunks.content)
    for number in range(chunks.count):
        part = data[number * CHUNK_SIZE : (number + 1) * CHUNK_SIZE]
        if not link.write((Put(f"{prefix}{number}", part, lease or link.lease.id),), deadline, peer=peer):
            break  # the peer is gone, which whoever writes the parcel finds out
    return chunks


def read_chunks(link: Link, chunks: Chunks, deadline: Deadline) -> bytes | None:
    """Return a content; None if it is not whole any more, because whoever wrote it has vanished.

    Raises:
        MetadataDecodeError: Another program has been at the chunks.
        StoreError: The store failed.
    """
    prefix = link.key.chunks(chunks.content)
    parts: list[bytes] = []
    size = 0
    for start in range(0, chunks.count, _READ_AT_ONCE):
        gets = tuple(Get(f"{prefix}{number}") for number in range(start, min(start + _READ_AT_ONCE, chunks.count)))
        for found in link.store.transact(Transaction((), gets), timeout=deadline.remaining()).reads:
            if not found:
                return None
            size += len(found[0].value)
            if size > chunks.size:
                break
            parts.append(found[0].value)
    if size != chunks.size:
        raise MetadataDecodeError(
            f"the chunks under {prefix} hold {size} bytes or more, not {chunks.size}: another program has written "
            "there",
            key=prefix,
        )
    return b"".join(parts)
