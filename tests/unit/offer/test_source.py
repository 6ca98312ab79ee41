from __future__ import annotations

import os
from pathlib import Path

import pytest

from trunkline.errors import FileError
from trunkline.offer import source as module
from trunkline.offer.manifest import chunk_digest
from trunkline.offer.source import find_source, load_source

CHUNK = 4096


def nothing(_: int) -> None:
    pass


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_file_is_read_and_hashed_by_chunk(tmp_path: Path, *, is_mapped: bool) -> None:
    data = os.urandom(2 * CHUNK + 5)
    (tmp_path / "f").write_bytes(data)
    steps: list[int] = []
    source = find_source(tmp_path / "f")
    manifest, contents = load_source(source, chunk_size=CHUNK, is_mapped=is_mapped, on_progress=steps.append)
    assert contents[0] is not None
    assert contents[0][:] == data
    assert (manifest.files[0].path, manifest.total, source.size) == ("f", len(data), len(data))
    assert not manifest.is_directory
    assert [manifest.files[0].digest(number) for number in range(3)] == [
        chunk_digest(data[start : start + CHUNK]) for start in range(0, len(data), CHUNK)
    ]
    assert steps == [CHUNK, CHUNK, 5]


def test_a_directory_with_empty_files_and_directories(tmp_path: Path) -> None:
    (tmp_path / "sub" / "empty").mkdir(parents=True)
    (tmp_path / "sub" / "a").write_bytes(b"a")
    (tmp_path / "nil").touch()
    source = find_source(tmp_path)
    manifest, contents = load_source(source, chunk_size=CHUNK, is_mapped=False, on_progress=nothing)
    assert [entry.path for entry in manifest.files] == ["nil", "sub/a"]
    assert manifest.directories == ("sub/empty",)
    assert contents[0] is None


def test_what_is_no_regular_file_is_skipped_and_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "new\nline").touch()
    source = find_source(tmp_path)
    assert source.files == ()
    assert len(source.skipped) == 4
    assert any("'link': it is a symbolic link" in reason for reason in source.skipped)


def test_a_link_to_a_file_keeps_its_own_name(tmp_path: Path) -> None:
    """As in a model cache, where names are links to blobs called by their hash."""
    (tmp_path / "0badc0de").write_bytes(b"weights")
    (tmp_path / "model.safetensors").symlink_to("0badc0de")
    source = find_source(tmp_path / "model.safetensors")
    assert (source.name, source.files) == ("model.safetensors", ("model.safetensors",))
    manifest, _ = load_source(source, chunk_size=CHUNK, is_mapped=False, on_progress=nothing)
    assert [(entry.path, entry.size) for entry in manifest.files] == [("model.safetensors", 7)]


def test_a_missing_path_and_a_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        find_source(tmp_path / "none")
    with pytest.raises(FileError, match="neither a file nor a directory"):
        find_source(Path(os.devnull))


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 2)
    for name in "abc":
        (tmp_path / name).touch()
    with pytest.raises(FileError, match="offer an archive"):
        find_source(tmp_path)


@pytest.mark.parametrize("size", [0, 2 * CHUNK, 5 * CHUNK])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(3 * CHUNK))

    def change(_: int) -> None:
        os.truncate(path, size)

    with pytest.raises(FileError, match="changed while it was read"):
        load_source(find_source(path), chunk_size=CHUNK, is_mapped=False, on_progress=change)


def test_a_file_that_is_overwritten_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(CHUNK))

    def change(_: int) -> None:
        os.utime(path, ns=(1, 1))

    with pytest.raises(FileError, match="changed while it was read"):
        load_source(find_source(path), chunk_size=CHUNK, is_mapped=True, on_progress=change)


@pytest.mark.parametrize("replacement", ["fifo", "link", "none"])
def test_a_file_that_was_replaced_since_it_was_found_is_refused(tmp_path: Path, replacement: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    source = find_source(path)
    path.unlink()
    if replacement == "fifo":
        os.mkfifo(path)
    elif replacement == "link":
        path.symlink_to("/etc/passwd")
    with pytest.raises(FileError):
        load_source(source, chunk_size=CHUNK, is_mapped=False, on_progress=nothing)


def test_writing_to_mapped_content_changes_no_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"before")
    _, contents = load_source(find_source(tmp_path / "f"), chunk_size=CHUNK, is_mapped=True, on_progress=nothing)
    assert contents[0] is not None
    contents[0][:] = b"after!"
    assert (tmp_path / "f").read_bytes() == b"before"
