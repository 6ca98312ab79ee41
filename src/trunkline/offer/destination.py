"""Where taken files are put: a part beside the final name, which only a whole and verified offer gets."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from trunkline.errors import FileError, VerificationError
from trunkline.offer.manifest import chunk_count, chunk_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from trunkline.offer.manifest import Manifest

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Chunk(NamedTuple):
    """A chunk of an offered file.

    Attributes:
        file: Number of the file in the manifest.
        number: Number of the chunk in the file.
        start: Offset of its first byte in the file.
        size: In bytes.
    """

    file: int
    number: int
    start: int
    size: int


class Destination:
    """A place to write an offer to; a context manager.

    Chunks are written to a part, ``.NAME.trunkline-part`` beside the destination, a file or a directory of the user's
    alone. It stays when the transfer breaks; the next take hashes what lies in it and fetches only what is missing.
    :meth:`commit` renames it. Different chunks may be written by different threads.

    Args:
        path: The final name.
        manifest: What will be written.
        force: Replace an existing file (or an empty directory).

    Raises:
        FileError: The destination exists or can't be written, or another process is taking to it.
    """

    def __init__(self, path: Path, manifest: Manifest, *, force: bool = False) -> None:
        self.path = path.absolute()
        self.manifest = manifest
        self.part = self.path.with_name(f".{self.path.name}.trunkline-part")
        self._force = force
        check_destination(path, is_directory=manifest.is_directory, force=force)
        with self._mapped_errors():
            self._lock = self._open_part()
        try:
            with self._mapped_errors():
                self._clear_strangers()
        except BaseException:
            self.close()
            raise

    def missing(self, on_kept: Callable[[int], object]) -> list[Chunk]:
        """Return the chunks that are not there yet, by hashing those that are.

        Args:
            on_kept: Called with the size of every chunk that need not be fetched.

        Raises:
            FileError: The part can't be read, or the disk has no room for the rest.
        """
        missing: list[Chunk] = []
        with self._mapped_errors():
            allocated = 0
            for number in range(len(self.manifest.files)):
                missing += self._missing_of(number, on_kept)
                allocated += self._allocated(number)
            room = os.statvfs(self.path.parent)
        free = room.f_bavail * room.f_frsize
        needed = self.manifest.total - allocated
        if needed > free:
            raise FileError(
                f"{self.path.parent} has {free:,} bytes left, but {needed:,} are needed; make room and take again",
                path=str(self.path),
                free=free,
                needed=needed,
            )
        return missing

    def write(self, chunk: Chunk, data: memoryview) -> None:
        """Check a chunk and write it to its place.

        Raises:
            VerificationError: It is not what was offered; nothing is written.
            FileError: It can't be written (the disk is full, for one).
        """
        entry = self.manifest.files[chunk.file]
        if chunk_digest(data) != entry.digest(chunk.number):
            raise VerificationError(
                f"{entry.path}: the {chunk.size:,} bytes at offset {chunk.start:,} are not those that were offered "
                "(SHA-256 differs): the file was changed under `offer --mmap`, or the transfer damaged it; "
                "offer it again",
                path=entry.path,
                offset=chunk.start,
            )
        with self._mapped_errors():
            place = self._place(chunk.file)
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _opened(place, _FILE_FLAGS) as descriptor:
                done = 0
                while done < len(data):
                    done += os.pwrite(descriptor, data[done:], chunk.start + done)

    def commit(self) -> None:
        """Give everything its final name, once it is safely on the disk.

        Raises:
            FileError: The disk refused, or the destination came into being meanwhile.
        """
        with self._mapped_errors():
            if self.manifest.is_directory:
                for path in self.manifest.directories:
                    (self.part / path).mkdir(mode=0o700, parents=True, exist_ok=True)
            for number, entry in enumerate(self.manifest.files):
                self._place(number).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with _opened(self._place(number), _FILE_FLAGS) as descriptor:
                    os.ftruncate(descriptor, entry.size)
                    os.fsync(descriptor)
            if self.manifest.is_directory:
                for place, _, _ in os.walk(self.part):
                    _sync_directory(Path(place))
        check_destination(self.path, is_directory=self.manifest.is_directory, force=self._force)
        with self._mapped_errors():
            self.part.rename(self.path)
            _sync_directory(self.path.parent)

    def close(self) -> None:
        """Let other processes write to the part. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Destination {self.path}>"

    def _place(self, number: int) -> Path:
        return self.part / self.manifest.files[number].path if self.manifest.is_directory else self.part

    def _open_part(self) -> int:
        """Make or find the part, lock it, and return the descriptor that holds the lock."""
        try:
            kind = self.part.lstat().st_mode
        except FileNotFoundError:
            pass
        else:
            if stat.S_ISREG(kind) and self.manifest.is_directory:  # a part of an earlier, different offer
                self.part.unlink()
            elif stat.S_ISDIR(kind) and not self.manifest.is_directory:
                shutil.rmtree(self.part)
        if self.manifest.is_directory:
            self.part.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self.part, _DIRECTORY_FLAGS if self.manifest.is_directory else _FILE_FLAGS, 0o600)
        try:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid() or (stat.S_ISREG(status.st_mode) and status.st_nlink > 1):
                raise FileError(f"{self.part} was not made by a take of yours; remove it", path=str(self.part))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FileError(
                    f"another process is taking to {self.path} right now; wait for it, or take to another path",
                    path=str(self.path),
                ) from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _clear_strangers(self) -> None:
        """Remove what an earlier take of another offer left in a part directory."""
        if not self.manifest.is_directory:
            return
        known = {self.part / entry.path for entry in self.manifest.files}
        for place, directories, files in os.walk(self.part, topdown=False):
            for name in files:
                path = Path(place, name)
                if path not in known or not stat.S_ISREG(path.lstat().st_mode):
                    path.unlink()
            for name in directories:
                path = Path(place, name)
                if path.is_symlink():
                    path.unlink()
                elif not any(path.iterdir()):
                    path.rmdir()

    def _missing_of(self, number: int, on_kept: Callable[[int], object]) -> list[Chunk]:
        entry = self.manifest.files[number]
        size = self.manifest.chunk_size
        chunks = [
            Chunk(number, index, index * size, min(size, entry.size - index * size))
            for index in range(chunk_count(entry.size, size))
        ]
        missing = []
        try:
            with _opened(self._place(number), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC) as descriptor:
                reach = os.fstat(descriptor).st_size
                for chunk in chunks:
                    data = os.pread(descriptor, chunk.size, chunk.start) if chunk.start < reach else b""
                    if chunk_digest(data) == entry.digest(chunk.number):
                        on_kept(chunk.size)
                    else:
                        missing.append(chunk)
        except (FileNotFoundError, NotADirectoryError):
            return chunks
        return missing

    def _allocated(self, number: int) -> int:
        """Return how many bytes of a file's have their place on the disk."""
        try:
            return min(self._place(number).lstat().st_blocks * 512, self.manifest.files[number].size)
        except (FileNotFoundError, NotADirectoryError):
            return 0

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except FileError:
            raise
        except OSError as error:
            raise FileError(
                f"writing {self.path}: {error.strerror or error} ({error.filename or self.part}); what was verified "
                f"is kept in {self.part}: take again once that is mended",
                path=str(self.path),
                errno=error.errno,
            ) from error


def check_destination(path: Path, *, is_directory: bool | None, force: bool) -> None:
    """Refuse a destination that exists and must not be replaced, or that can't come into being.

    Args:
        path: The final name.
        is_directory: Whether a directory is to be put there; None if that is not known yet.
        force: Whether a file, or an empty directory, may be replaced.

    Raises:
        FileError: It can't be used, and why.
    """
    path = path.absolute()
    if not path.name or not path.parent.is_dir():
        raise FileError(f"can't write {path}: {path.parent} is not a directory", path=str(path))
    if not os.path.lexists(path):
        return
    if path.is_dir() and not path.is_symlink():
        if is_directory is False or any(path.iterdir()):
            raise FileError(
                f"{path} is an existing directory; name a path that does not exist yet, or remove it", path=str(path)
            )
    elif is_directory:
        raise FileError(f"{path} exists and is no directory, but a directory is offered; remove it", path=str(path))
    if not force:
        raise FileError(f"{path} exists; --force replaces it", path=str(path))


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    with _opened(path, _DIRECTORY_FLAGS) as descriptor:
        os.fsync(descriptor)
