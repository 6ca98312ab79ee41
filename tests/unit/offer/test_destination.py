from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from trunkline.errors import FileError, VerificationError
from trunkline.offer.destination import Chunk, Destination
from trunkline.offer.manifest import MIN_CHUNK_SIZE, FileEntry, Manifest, chunk_digest

if TYPE_CHECKING:
    from pathlib import Path

SIZE = MIN_CHUNK_SIZE
DATA = bytes(range(256)) * (2 * SIZE // 256) + b"tail"


def entry(path: str, data: bytes) -> FileEntry:
    digests = b"".join(chunk_digest(data[start : start + SIZE]) for start in range(0, len(data), SIZE))
    return FileEntry(path, len(data), digests)


def manifest_of(files: dict[str, bytes], *, directories: tuple[str, ...] = (), single: bool = False) -> Manifest:
    return Manifest(
        is_directory=not single,
        files=tuple(entry(path, data) for path, data in files.items()),
        directories=directories,
        chunk_size=SIZE,
        total=sum(map(len, files.values())),
    )


SINGLE = manifest_of({"f": DATA}, single=True)
TREE_FILES = {"a": b"a", "d/b": DATA, "d/nil": b""}
TREE = manifest_of(TREE_FILES, directories=("e/f",))


def nothing(_: int) -> None:
    pass


def fill(destination: Destination, data: list[bytes], chunks: list[Chunk]) -> None:
    for chunk in chunks:
        destination.write(chunk, memoryview(data[chunk.file])[chunk.start : chunk.start + chunk.size])


def test_a_file_appears_under_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with Destination(path, SINGLE) as destination:
        chunks = destination.missing(nothing)
        assert [(chunk.start, chunk.size) for chunk in chunks] == [(0, SIZE), (SIZE, SIZE), (2 * SIZE, 4)]
        fill(destination, [DATA], chunks[::-1])
        assert not path.exists()
        assert destination.part.stat().st_mode & 0o777 == 0o600
        destination.commit()
    assert path.read_bytes() == DATA
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_earlier_take_left_is_hashed_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with Destination(path, SINGLE) as destination:
        fill(destination, [DATA], destination.missing(nothing)[:2])
        part = destination.part
    with part.open("r+b") as file:  # and one of them was damaged since
        file.write(b"damage")
    kept: list[int] = []
    with Destination(path, SINGLE) as destination:
        missing = destination.missing(kept.append)
        assert [chunk.number for chunk in missing] == [0, 2]
        assert kept == [SIZE]
        fill(destination, [DATA], missing)
        destination.commit()
    assert path.read_bytes() == DATA


def test_a_longer_part_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "out"
    (tmp_path / ".out.trunkline-part").write_bytes(DATA + b"more")
    with Destination(path, SINGLE) as destination:
        assert destination.missing(nothing) == []
        destination.commit()
    assert path.read_bytes() == DATA


def test_wrong_bytes_are_named_and_not_written(tmp_path: Path) -> None:
    with Destination(tmp_path / "out", SINGLE) as destination:
        chunk = destination.missing(nothing)[1]
        with pytest.raises(VerificationError, match=r"f: the 4,096 bytes at offset 4,096") as caught:
            destination.write(chunk, memoryview(bytes(SIZE)))
        assert caught.value.context == {"path": "f", "offset": SIZE}
        assert destination.part.stat().st_size == 0


def test_a_directory_with_empty_files_and_directories(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with Destination(path, TREE) as destination:
        fill(destination, list(TREE_FILES.values()), destination.missing(nothing))
        destination.commit()
    assert {name: (path / name).read_bytes() for name in TREE_FILES} == TREE_FILES
    assert (path / "e" / "f").is_dir()
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_directory_keeps_nothing_of_another_offer(tmp_path: Path) -> None:
    part = tmp_path / ".out.trunkline-part"
    (part / "old" / "deep").mkdir(parents=True)
    (part / "old" / "deep" / "stranger").write_bytes(b"x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").write_bytes(b"untouched")
    (part / "d").symlink_to(outside)
    (part / "a").symlink_to(outside / "b")
    with Destination(tmp_path / "out", TREE) as destination:
        fill(destination, list(TREE_FILES.values()), destination.missing(nothing))
        destination.commit()
    found = {str(place.relative_to(tmp_path / "out")) for place in (tmp_path / "out").rglob("*") if place.is_file()}
    assert found == set(TREE_FILES)
    assert (outside / "b").read_bytes() == b"untouched"


@pytest.mark.parametrize(("first", "second"), [(SINGLE, TREE), (TREE, SINGLE)])
def test_a_part_of_the_other_kind_is_replaced(tmp_path: Path, first: Manifest, second: Manifest) -> None:
    data = {id(SINGLE): [DATA], id(TREE): list(TREE_FILES.values())}
    for manifest in (first, second):
        with Destination(tmp_path / "out", manifest) as destination:
            fill(destination, data[id(manifest)], destination.missing(nothing))
            if manifest is second:
                destination.commit()
    assert (tmp_path / "out").is_dir() == second.is_directory


def test_a_part_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    part = tmp_path / ".out.trunkline-part"
    part.symlink_to(victim)
    with pytest.raises(FileError):
        Destination(tmp_path / "out", SINGLE)
    part.unlink()
    part.hardlink_to(victim)
    with pytest.raises(FileError, match="not made by a take of yours"):
        Destination(tmp_path / "out", SINGLE)
    assert victim.read_bytes() == b"precious"


def test_two_takes_to_one_place(tmp_path: Path) -> None:
    for manifest in (SINGLE, TREE):
        path = tmp_path / f"out-{manifest.is_directory}"
        with Destination(path, manifest), pytest.raises(FileError, match="another process is taking"):
            Destination(path, manifest)
        Destination(path, manifest).close()


def test_existing_files_are_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(FileError, match="--force"):
        Destination(path, SINGLE)
    with pytest.raises(FileError, match="is no directory"):
        Destination(path, TREE, force=True)
    with Destination(path, SINGLE, force=True) as destination:
        fill(destination, [DATA], destination.missing(nothing))
        assert path.read_bytes() == b"old"
        destination.commit()
    assert path.read_bytes() == DATA


def test_existing_directories_must_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    with pytest.raises(FileError, match="existing directory"):
        Destination(path, SINGLE, force=True)
    with pytest.raises(FileError, match="--force"):
        Destination(path, TREE)
    with Destination(path, TREE, force=True) as destination:
        fill(destination, list(TREE_FILES.values()), destination.missing(nothing))
        destination.commit()
    with pytest.raises(FileError, match="existing directory"):
        Destination(path, TREE, force=True)


def test_a_destination_that_came_into_being_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with Destination(path, SINGLE) as destination:
        fill(destination, [DATA], destination.missing(nothing))
        path.write_bytes(b"newer")
        with pytest.raises(FileError, match="exists"):
            destination.commit()
    assert path.read_bytes() == b"newer"


def test_a_parent_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is not a directory"):
        Destination(tmp_path / "none" / "out", SINGLE)


def test_a_disk_without_room_is_noticed_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 1 << 58
    chunk = 64 << 20
    huge = Manifest(is_directory=False, files=(FileEntry("f", size, b""),), chunk_size=chunk, total=size)
    monkeypatch.setattr("trunkline.offer.destination.chunk_count", lambda *_: 0)
    with (
        Destination(tmp_path / "out", huge) as destination,
        pytest.raises(FileError, match="are needed; make room"),
    ):
        destination.missing(nothing)


def test_a_disk_that_fills_up_keeps_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with Destination(tmp_path / "out", SINGLE) as destination:
        chunks = destination.missing(nothing)
        fill(destination, [DATA], chunks[:1])
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(FileError, match=r"No space left on device.*is kept in") as caught:
            fill(destination, [DATA], chunks[1:])
    assert caught.value.context["errno"] == 28
    assert (tmp_path / ".out.trunkline-part").read_bytes() == DATA[:SIZE]
