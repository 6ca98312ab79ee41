from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.errors import MetadataDecodeError
from trunkline.offer.manifest import (
    DIGEST_SIZE,
    MAX_BYTES,
    MAX_FILES,
    MAX_PATH_BYTES,
    MIN_CHUNK_SIZE,
    FileEntry,
    Manifest,
    chunk_count,
    chunk_digest,
    decode_manifest,
    encode_manifest,
    path_flaw,
)


def one_file(**changes: Any) -> dict[str, Any]:
    """A manifest as its JSON stands for it, with some fields changed."""
    data = encode_manifest(
        Manifest(
            is_directory=True,
            files=(FileEntry("a/b", 3, chunk_digest(b"abc")), FileEntry("c", 0, b"")),
            directories=("empty",),
            chunk_size=MIN_CHUNK_SIZE,
            total=3,
        )
    )
    return {**json.loads(data), **changes}


def decode(record: Any) -> Manifest:
    return decode_manifest(json.dumps(record).encode())


parts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="/"), min_size=1, max_size=8)


@given(
    sizes=st.dictionaries(parts.filter(lambda part: part not in (".", "..")), st.integers(0, 10 * MIN_CHUNK_SIZE)),
    seed=st.binary(min_size=DIGEST_SIZE, max_size=DIGEST_SIZE),
)
def test_what_is_encoded_is_decoded(sizes: dict[str, int], seed: bytes) -> None:
    manifest = Manifest(
        is_directory=True,
        files=tuple(
            FileEntry(f"d/{name}", size, seed * chunk_count(size, MIN_CHUNK_SIZE)) for name, size in sizes.items()
        ),
        chunk_size=MIN_CHUNK_SIZE,
        total=sum(sizes.values()),
    )
    assert decode_manifest(encode_manifest(manifest)) == manifest


@given(st.binary(max_size=200))
def test_bytes_that_are_no_manifest_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(MetadataDecodeError):
        decode_manifest(data)


@given(position=st.integers(min_value=0), value=st.integers(0, 255))
def test_a_damaged_manifest_is_refused_or_still_safe(position: int, value: int) -> None:
    data = bytearray(json.dumps(one_file()).encode())
    data[position % len(data)] = value
    try:
        manifest = decode_manifest(data)
    except MetadataDecodeError:
        return
    assert all(path_flaw(entry.path) is None for entry in manifest.files)
    assert sum(entry.size for entry in manifest.files) == manifest.total
    for entry in manifest.files:
        assert len(entry.digests) == DIGEST_SIZE * chunk_count(entry.size, manifest.chunk_size)


def test_unknown_fields_are_ignored_and_newer_formats_refused() -> None:
    assert decode(one_file(format=2, news="x")).total == 3
    with pytest.raises(MetadataDecodeError, match="update trunkline"):
        decode(one_file(format=2, min_reader=2))


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "a/./b", "a\0b", "a\nb", "a\x1b[2J", "a\x9b1m"],
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    for changes in (
        {"files": [{"path": path, "size": 0, "digests": ""}], "total": 0, "directories": []},
        {"directories": [path]},
    ):
        with pytest.raises(MetadataDecodeError):
            decode(one_file(**changes))


def test_paths_that_are_too_long_are_refused() -> None:
    assert path_flaw("a" * 256) == "is too long"
    assert path_flaw("/".join(["a" * 200] * 21)) == "is too long"
    assert path_flaw("a" * 255) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"total": 4}, "don't add up"),
        ({"directories": ["a/b"]}, "one path"),
        ({"directories": ["a/b/c"]}, "within a file"),
        ({"directories": ["e", "e/f"]}, "within a file"),
        ({"chunk_size": MIN_CHUNK_SIZE - 1}, "chunk_size"),
        ({"chunk_size": 2**40}, "chunk_size"),
        ({"is_directory": False}, "single file"),
        ({"files": [{"path": "x", "size": 2**62, "digests": ""}], "total": 2**62}, "checksums"),
        ({"files": [{"path": "x", "size": -1, "digests": ""}]}, ">= 0"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(MetadataDecodeError, match=reason):
        decode(one_file(**changes))


@pytest.mark.parametrize("inner", ["a/b", "a/b/c/d"])
def test_what_lies_within_is_found_whatever_lies_between(inner: str) -> None:
    """A hyphen and a dot come before the slash."""
    for directories in (["a", "a-", "a.b", inner], [inner, "a.b", "a"], ["b", "a", "c", "a-/b", inner]):
        with pytest.raises(MetadataDecodeError, match="within a file"):
            decode(one_file(files=[], total=0, directories=directories))
    assert decode(one_file(files=[], total=0, directories=["a-", inner, "a.b", "a-b/a", inner + "-"])).total == 0


def test_the_deepest_paths_that_can_be_are_checked_in_seconds() -> None:
    """Looking up each of their 20 million parents would take a quarter of an hour."""
    tail = "/a" * ((MAX_PATH_BYTES - 5) // 2)
    manifest = Manifest(
        is_directory=True,
        files=tuple(FileEntry(f"{number:05}{tail}", 0, b"") for number in range(MAX_FILES)),
        chunk_size=MIN_CHUNK_SIZE,
        total=0,
    )
    assert len(decode_manifest(encode_manifest(manifest)).files) == MAX_FILES


def test_a_single_file_has_a_plain_name() -> None:
    single = one_file(is_directory=False, directories=[], files=one_file()["files"][:1])
    with pytest.raises(MetadataDecodeError, match="is not a name"):
        decode(single)


def test_a_manifest_that_is_too_large_is_not_even_read() -> None:
    with pytest.raises(MetadataDecodeError, match="at most"):
        decode_manifest(b" " * (MAX_BYTES + 1))
