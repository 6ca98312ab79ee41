"""Contents too large for one transaction: chunks are written first, then the record that says where they lie.

Theory of operation. A content's chunks have a directory of their own, with a random name that is never used again, on
the lease of the agent's session. They are complete before a record names them, and are deleted only after one that
does not. So whoever reads them at a revision at which the record named them finds them whole. Where the store does not
go back so far, they are read as they are now: if they are not whole then, the record has changed meanwhile, or somebody
else has been at the chunks. Nobody watches them.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from trunkline.errors import MetadataDecodeError, StoreError, StoreLimitError
from trunkline.metadata.presence import ChunksRecord
from trunkline.store.contract import Delete, Get, KeyHasLease, Store, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from trunkline.clock import Deadline
    from trunkline.metadata.key import MetadataKey
    from trunkline.metadata.presence import ContentRecord

MAX_TRANSACTION_SIZE = 1 << 20
"""Bytes of contents and record that are written at once; the largest of more are chunked. etcd takes 1.5 MiB."""

MAX_CONTENT_SIZE = 64 << 20
"""Bytes of one content, be it metadata or catalog, that are written, and read."""

CHUNK_SIZE = 512 << 10
"""Bytes of a chunk that is written. What is read may be divided otherwise."""

READ_AT_ONCE = 8
"""Chunks that are read in one transaction."""

_MISMATCH = "the {} chunks under {} do not match their agent's record: another program has written there"


def choose_chunked(contents: Mapping[str, bytes], room: int) -> set[str]:
    """Return which of some contents must be chunked for the others to fit into so many bytes: the largest."""
    chosen: set[str] = set()
    size = sum(map(len, contents.values()))
    for name in sorted(contents, key=lambda name: len(contents[name]), reverse=True):
        if size <= room:
            break
        chosen.add(name)
        size -= len(contents[name])
    return chosen


class ChunkWriter:
    """Writes and deletes the chunks of one session. One thread at a time.

    Args:
        store: Where.
        key: The agent; its label does not matter.
        lease: What the chunks hang on: they go with it.
    """

    def __init__(self, store: Store, key: MetadataKey, lease: int) -> None:
        self._store = store
        self._key = key
        self._lease = lease
        self._directories: set[str] = set()  # that there may be, also half-written ones

    def write(self, content: bytes, put: Callable[[str, bytes], None]) -> ChunksRecord:
        """Write a content in chunks; return where.

        Args:
            content: What to write.
            put: Puts a key on the lease; raises if the name was lost, and if the store failed.

        Raises:
            StoreLimitError: It is over 64 MiB.
        """
        if len(content) > MAX_CONTENT_SIZE:
            raise StoreLimitError(
                f"agent {self._key.agent!r} can't publish {len(content)} bytes of metadata or catalog (at most "
                f"{MAX_CONTENT_SIZE}). Register fewer, larger ranges, or publish them in parts, by label",
                agent=self._key.agent,
                size=len(content),
                limit=MAX_CONTENT_SIZE,
            )
        directory = secrets.token_hex(16)
        self._directories.add(directory)
        starts = range(0, len(content), CHUNK_SIZE)
        for number, start in enumerate(starts):
            put(self._key.chunk(directory, number), content[start : start + CHUNK_SIZE])
        return ChunksRecord(directory, len(starts))

    def intact(self, records: Iterable[ContentRecord], deadline: Deadline) -> set[str]:
        """Return the directories in which all chunks of some contents lie, on the session's lease."""
        wanted = [record.chunks for record in records if record.chunks is not None]
        if not wanted:
            return set()
        listing = self._store.list(self._key.chunks_prefix, keys_only=True, timeout=deadline.remaining())
        held = {entry.key for entry in listing.entries if entry.lease == self._lease}
        return {
            chunks.directory
            for chunks in wanted
            if held.issuperset(self._key.chunk(chunks.directory, number) for number in range(chunks.count))
        }

    def keep_only(self, records: Iterable[ContentRecord], deadline: Deadline) -> None:
        """Delete the chunks that no record names any more. What can't be deleted now is tried again the next time."""
        self._directories |= (named := {record.chunks.directory for record in records if record.chunks is not None})
        for directory in self._directories - named:
            with suppress(StoreError):
                self._store.transact(
                    Transaction(
                        (KeyHasLease(self._key.presence, self._lease),),
                        (Delete(f"{self._key.chunks_prefix}{directory}/", prefix=True),),
                    ),
                    timeout=deadline.remaining(),
                )
                self._directories.discard(directory)


def read_chunks(
    store: Store, key: MetadataKey, record: ContentRecord, chunks: ChunksRecord, *, revision: int, deadline: Deadline
) -> bytes | str:
    """Return a content that lies in chunks, checked against its record; or what is wrong with them.

    Args:
        store: Where.
        key: Whose; its label does not matter.
        record: The content's.
        chunks: The record's.
        revision: When the chunks were there; 0 to read what is there now.
        deadline: When to give up.

    Raises:
        MetadataDecodeError: It would be over 64 MiB.
        RevisionUnavailableError: The store does not go back to that revision.
        StoreError: The store failed.
    """
    if record.size > MAX_CONTENT_SIZE:
        raise MetadataDecodeError(
            f"the record {key.presence} names a content of {record.size} bytes: at most {MAX_CONTENT_SIZE} are read",
            field="size",
            key=key.presence,
        )
    names = [key.chunk(chunks.directory, number) for number in range(chunks.count)]
    parts: list[bytes] = []
    left, digest = record.size, sha256()
    for start in range(0, len(names), READ_AT_ONCE):
        reads = tuple(Get(name, revision=revision) for name in names[start : start + READ_AT_ONCE])
        for get, found in zip(
            reads, store.transact(Transaction((), reads), timeout=deadline.remaining()).reads, strict=True
        ):
            if not found:
                return f"{get.key}, one of {chunks.count} chunks, is missing"
            left -= len(found[0].value)
            if left < 0:
                return _MISMATCH.format(chunks.count, f"{key.chunks_prefix}{chunks.directory}/")
            digest.update(found[0].value)
            parts.append(found[0].value)
    if left or digest.hexdigest() != record.sha256:
        return _MISMATCH.format(chunks.count, f"{key.chunks_prefix}{chunks.directory}/")
    return b"".join(parts)
