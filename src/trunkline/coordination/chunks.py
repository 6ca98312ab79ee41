"""Values too large for one key: their chunks are written first, then the parcel that says how large they are. Nobody
watches chunks; those who want them read them. Who wrote them deletes them once all have read them.

A call that is made again writes the same chunks again, under the same keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.coordination.record import CHUNK_SIZE
from trunkline.errors import MetadataDecodeError
from trunkline.store.contract import NO_LEASE, Get, Put, Transaction

if TYPE_CHECKING:
    from trunkline.clock import Deadline
    from trunkline.coordination.link import Link

_READ_AT_ONCE = 4


def write_chunks(
    link: Link, prefix: str, data: bytes, deadline: Deadline, *, lease: int = NO_LEASE, peer: int | None = None
) -> None:
    """Write a content in chunks.

    Args:
        link: Whose.
        prefix: What the chunks' keys begin with.
        data: The content.
        deadline: When to give up.
        lease: What they hang on; by default this worker's.
        peer: The worker without whom they need not be written.

    Raises:
        As :meth:`Link.write`.
    """
    for number, start in enumerate(range(0, len(data), CHUNK_SIZE)):
        put = Put(f"{prefix}{number}", data[start : start + CHUNK_SIZE], lease or link.lease.id)
        if not link.write((put,), deadline, peer=peer):
            return  # whoever writes the parcel finds that out, too


def read_chunks(link: Link, prefix: str, size: int, deadline: Deadline) -> bytes | None:
    """Return a content; None if it is not whole any more, because whoever wrote it has vanished.

    Args:
        link: Who reads.
        prefix: What the chunks' keys begin with.
        size: The content's, in bytes.
        deadline: When to give up.

    Raises:
        MetadataDecodeError: Another program has been at the chunks.
        StoreError: The store failed.
    """
    parts: list[bytes] = []
    left = size
    names = [f"{prefix}{number}" for number in range(-(-size // CHUNK_SIZE))]
    for start in range(0, len(names), _READ_AT_ONCE):
        gets = tuple(Get(name) for name in names[start : start + _READ_AT_ONCE])
        for found in link.store.transact(Transaction((), gets), timeout=deadline.remaining()).reads:
            if not found:
                return None
            if len(found[0].value) != min(left, CHUNK_SIZE):
                raise MetadataDecodeError(
                    f"{found[0].key} holds {len(found[0].value)} bytes, not {min(left, CHUNK_SIZE)}: another program "
                    "has written there",
                    key=found[0].key,
                )
            left -= len(found[0].value)
            parts.append(found[0].value)
    return b"".join(parts)
