"""The files to offer: found, read into memory and hashed."""

from __future__ import annotations

import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trunkline.errors import FileError
from trunkline.offer.manifest import MAX_FILES, FileEntry, Manifest, chunk_digest, path_flaw

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be offered.

    Attributes:
        root: The file or directory, symbolic links resolved.
        is_directory: Which of them.
        files: Paths of the files relative to ``root``, with slashes; for a single file its name.
        directories: Empty directories, likewise.
        size: Of all files, in bytes, when they were found.
        skipped: What is left out, and why, in words.
    """

    root: Path
    is_directory: bool
    files: tuple[str, ...]
    size: int
    directories: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the file, as it was given, or of the directory."""
        return self.root.name if self.is_directory else self.files[0]

    def locate(self, path: str) -> Path:
        """Return where one of its files lies."""
        return self.root / path if self.is_directory else self.root


def find_source(path: Path) -> Source:
    """Look what there is to offer. Symbolic links are followed for ``path`` itself, never below it.

    Raises:
        FileError: There is no file or directory, it can't be listed, or it holds too many files.
    """
    try:
        root = path.resolve(strict=True)
        if root.is_dir():
            return _walk(root)
        if not root.is_file():
            raise FileError(f"{path} is neither a file nor a directory, so it can't be offered", path=str(path))
        size = root.stat().st_size
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise _unreadable(path, error) from error
    name = path.absolute().name  # that of a link, not of what it leads to: model caches are full of such links
    flaw = path_flaw(name)
    if flaw is not None:
        raise FileError(f"{str(path)!r} can't be offered: its name {flaw}", path=str(path))
    return Source(root, is_directory=False, files=(name,), size=size)


def _walk(root: Path) -> Source:
    files: list[str] = []
    directories: list[str] = []
    skipped: list[str] = []
    size = 0
    unseen = [root]
    while unseen:
        place = unseen.pop()
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        if not entries and place != root:
            directories.append(place.relative_to(root).as_posix())
        for entry in entries:
            path = Path(entry.path).relative_to(root).as_posix()
            flaw = path_flaw(path)
            if flaw is not None:
                skipped.append(f"{path!r}: its path {flaw}")
            elif entry.is_dir(follow_symlinks=False):
                unseen.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                files.append(path)
                size += entry.stat(follow_symlinks=False).st_size
            else:
                what = "a symbolic link" if entry.is_symlink() else "not a regular file"
                skipped.append(f"{path!r}: it is {what}")
        if max(len(files), len(directories)) > MAX_FILES:
            raise FileError(f"{root} holds more than {MAX_FILES:,} files; offer an archive of it", path=str(root))
    return Source(
        root,
        is_directory=True,
        files=tuple(sorted(files)),
        size=size,
        directories=tuple(sorted(directories)),
        skipped=tuple(skipped),
    )


def load_source(
    source: Source, *, chunk_size: int, is_mapped: bool, on_progress: Callable[[int], object]
) -> tuple[Manifest, list[mmap.mmap | None]]:
    """Read all files, hash their chunks, and return the manifest and each file's content (None for empty files).

    Args:
        source: What to read.
        chunk_size: Bytes per checksum.
        is_mapped: Map the files instead of copying them into memory of their own: changes to a file are then
            served (and refused by takers), and a file that is truncated kills the process that touches it (SIGBUS).
        on_progress: Called with the number of bytes just read.

    Raises:
        FileError: A file can't be read, or changes while it is read.
    """
    entries = []
    contents = []
    for path in source.files:
        place = source.locate(path)
        try:
            content, digests = _load(place, chunk_size, is_mapped=is_mapped, on_progress=on_progress)
        except OSError as error:
            if isinstance(error, FileError):
                raise
            raise _unreadable(place, error) from error
        entries.append(FileEntry(path, len(content) if content is not None else 0, digests))
        contents.append(content)
    manifest = Manifest(
        is_directory=source.is_directory,
        files=tuple(entries),
        directories=source.directories,
        chunk_size=chunk_size,
        total=sum(entry.size for entry in entries),
    )
    return manifest, contents


def _load(
    path: Path, chunk_size: int, *, is_mapped: bool, on_progress: Callable[[int], object]
) -> tuple[mmap.mmap | None, bytes]:
    # O_NONBLOCK: a FIFO put in the file's place must not hold us up.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise _changed(path)
        digests = bytearray()
        content = None
        if before.st_size and is_mapped:
            # Copy on write: even a peer that writes to it changes no file.
            content = mmap.mmap(descriptor, before.st_size, access=mmap.ACCESS_COPY)
        elif before.st_size:
            content = mmap.mmap(-1, before.st_size)
        for start in range(0, before.st_size, chunk_size):
            assert content is not None
            with memoryview(content)[start : start + chunk_size] as chunk:
                if not is_mapped and not _fill(chunk, file):
                    raise _changed(path)
                digests += chunk_digest(chunk)
                on_progress(len(chunk))
        after = os.fstat(descriptor)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise _changed(path)
    return content, bytes(digests)


def _fill(target: memoryview, file: FileIO) -> bool:
    """Read until ``target`` is full; return False if the file ends before."""
    done = 0
    while done < len(target):
        count = file.readinto(target[done:])
        if not count:
            return False
        done += count
    return True


def _changed(path: Path) -> FileError:
    return FileError(f"{path} changed while it was read; offer it when nobody writes to it", path=str(path))


def _unreadable(path: Path, error: OSError) -> FileError:
    return FileError(f"{path} can't be read: {error.strerror or error}", path=str(path), errno=error.errno)
