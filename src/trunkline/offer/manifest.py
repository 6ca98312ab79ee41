"""The manifest: which files an offer holds, and the checksums of their chunks. JSON in registered memory.

Trunkline's own. An offer registers it as ``manifest``, and the content of file *i* as ``file/i`` (empty files have
none). Takers trust nothing in it: everything is bounded and checked before it is used.
"""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from trunkline.errors import MetadataDecodeError

FORMAT = 1
"""The format written, and the newest ``min_reader`` that is understood."""

MANIFEST = "manifest"
FILE_GROUP = "file"

MAX_BYTES = 64 << 20
"""The largest encoded manifest that is read: checksums of 16 MiB chunks for some 20 TB."""

MAX_FILES = 10_000
MIN_CHUNK_SIZE = 4 << 10
MAX_CHUNK_SIZE = 64 << 20
DEFAULT_CHUNK_SIZE = 16 << 20

MAX_PATH_BYTES = 4096 - 1
MAX_PART_BYTES = 255
DIGEST_SIZE = 32

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ELSEWHERE = {b"", b".", b".."}

PathText: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_PATH_BYTES)]
Natural: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class FileEntry(msgspec.Struct, frozen=True):
    """One file.

    Attributes:
        path: Where it lies in the offered directory, with slashes; for a single file its name.
        size: In bytes.
        digests: The SHA-256 digests of its chunks, one after the other.
    """

    path: PathText
    size: Natural
    digests: bytes

    def digest(self, chunk: int) -> bytes:
        """Return the SHA-256 digest of one chunk."""
        return self.digests[chunk * DIGEST_SIZE : (chunk + 1) * DIGEST_SIZE]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All files of an offer.

    Attributes:
        is_directory: Whether a directory is offered, or one file.
        files: The files, at most ``MAX_FILES``.
        directories: Directories of the offered one that hold nothing.
        chunk_size: Bytes per checksum; the last chunk of a file may be shorter.
        total: Size of all files, in bytes.
    """

    is_directory: bool
    files: Annotated[tuple[FileEntry, ...], Meta(max_length=MAX_FILES)]
    directories: Annotated[tuple[PathText, ...], Meta(max_length=MAX_FILES)] = ()
    chunk_size: Annotated[int, Meta(ge=MIN_CHUNK_SIZE, le=MAX_CHUNK_SIZE)]
    total: Natural


class _Record(Manifest, frozen=True, kw_only=True):
    format: Natural
    min_reader: Natural


class _Version(msgspec.Struct):
    min_reader: Natural


# Made with the module, as those of presence records are.
_VERSION = msgspec.json.Decoder(_Version)
_RECORD = msgspec.json.Decoder(_Record)


def chunk_count(size: int, chunk_size: int) -> int:
    """Return in how many chunks a file of ``size`` bytes is checked."""
    return -(-size // chunk_size)


def chunk_digest(data: bytes | memoryview) -> bytes:
    """Return the SHA-256 digest of one chunk."""
    return hashlib.sha256(data).digest()


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as JSON; it must be one that :func:`decode_manifest` takes."""
    return msgspec.json.encode(_Record(**msgspec.structs.asdict(manifest), format=FORMAT, min_reader=FORMAT))


def decode_manifest(data: bytes | bytearray | memoryview) -> Manifest:
    """Return the manifest that :func:`encode_manifest` wrote.

    Raises:
        MetadataDecodeError: Larger than ``MAX_BYTES``, not such JSON, for newer readers only, a path that leads
            elsewhere or clashes with another, or sizes and checksums that don't fit each other.
    """
    if len(data) > MAX_BYTES:
        raise MetadataDecodeError(f"manifest of {len(data):,} bytes: at most {MAX_BYTES:,} are read", field="size")
    try:
        version = _VERSION.decode(data)
        if version.min_reader > FORMAT:
            raise MetadataDecodeError(
                f"the manifest is for readers of format {version.min_reader} and up; this is {FORMAT}: "
                "update trunkline",
                field="min_reader",
            )
        record = _RECORD.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MetadataDecodeError(f"bad manifest: {error}", field="manifest") from error
    _check(record)
    return Manifest(
        is_directory=record.is_directory,
        files=record.files,
        directories=record.directories,
        chunk_size=record.chunk_size,
        total=record.total,
    )


def path_flaw(path: str) -> str | None:
    """Return why a path can't be in a manifest, or None."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "can't be encoded as UTF-8"
    if _CONTROL.search(path):
        return "holds a control character"
    parts = encoded.split(b"/")
    if not _ELSEWHERE.isdisjoint(parts):
        return "is not a plain relative path"
    if len(encoded) > MAX_PATH_BYTES or max(map(len, parts)) > MAX_PART_BYTES:
        return "is too long"
    return None


def _check(manifest: Manifest) -> None:
    if not manifest.is_directory and (len(manifest.files) != 1 or manifest.directories):
        raise MetadataDecodeError(
            f"bad manifest: a single file is offered, but {len(manifest.files)} are listed", field="files"
        )
    for file in manifest.files:
        if len(file.digests) != DIGEST_SIZE * chunk_count(file.size, manifest.chunk_size):
            raise MetadataDecodeError(
                f"bad manifest: {len(file.digests)} bytes of checksums for a file of {file.size:,} bytes "
                f"in chunks of {manifest.chunk_size:,}",
                field="digests",
            )
    if sum(file.size for file in manifest.files) != manifest.total:
        raise MetadataDecodeError("bad manifest: the files' sizes don't add up to its total", field="total")
    _check_paths([*(file.path for file in manifest.files), *manifest.directories], manifest.is_directory)


def _check_paths(paths: list[str], is_directory: bool) -> None:
    for path in paths:
        flaw = path_flaw(path) or (None if is_directory or "/" not in path else "is not a name")
        if flaw is not None:
            raise MetadataDecodeError(f"bad manifest: the path {path[:64]!r} {flaw}", field="path")
    # What lies within a path comes right after it: thousands of deep paths have too many parents to look each up.
    for before, path in pairwise(sorted(f"{path}/" for path in paths)):
        if path == before:
            raise MetadataDecodeError("bad manifest: two files have one path", field="path")
        if path.startswith(before):
            raise MetadataDecodeError(f"bad manifest: {path[:-1][:64]!r} lies within a file", field="path")
