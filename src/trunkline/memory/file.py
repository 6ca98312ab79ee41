"""Files and stored objects as things to register: transfers move bytes between them and memory."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from trunkline.errors import ConfigurationError, FileError

if TYPE_CHECKING:
    from types import TracebackType

FileMode: TypeAlias = Literal["r", "r+", "w+", "x+"]

_FLAGS = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "x+": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}

_LARGEST = 2**63 - 1  # what off_t holds

_numbers = itertools.count(1 << 32)  # objects' numbers; clients of NIXL's API give theirs small ones


class OpenDescriptor:
    """A descriptor, closed when nobody holds this any more: until then its number stands for no other file."""

    def __init__(self, number: int) -> None:
        self.number = number
        weakref.finalize(self, _close, number)


class File:
    """An open file, to be registered: ``spill = agent.register(File("spill.bin", "w+", size=1 << 30))``.

    What ``register`` returns is a view of its bytes (:func:`trunkline.typed` gives them a type and shape), and the far
    side of transfers: ``agent.write(kv[blocks], to=spill[places])``.

    It may be closed while it is registered: its descriptor goes with :meth:`Agent.deregister`. Any thread may call any
    method.

    Args:
        path: The file.
        mode: As for :func:`open`: ``"r"`` to read only, ``"r+"`` also to write, ``"w+"`` to make or empty it,
            ``"x+"`` to make it.
        size: Bytes that transfers may use, from the start. Default: the file's own size. A file that can be written is
            extended to it (sparsely: that takes no room on the disk yet).
        direct: Past the page cache (``O_DIRECT``); what is written then begins and ends with a block.

    Attributes:
        path: The file's path, absolute.
        size: Bytes that transfers may use.
        mode: As given.

    Raises:
        FileError: It can't be opened: it is not there, or a directory, or not for this user, or the file system has no
            direct I/O …
        ConfigurationError: An unknown mode, or a size that can't be.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        mode: FileMode = "r",
        *,
        size: int | None = None,
        direct: bool = False,
    ) -> None:
        if mode not in _FLAGS:
            raise ConfigurationError(f"mode={mode!r}: a file is opened with one of {', '.join(_FLAGS)}", mode=mode)
        if size is not None and not 0 < size <= _LARGEST:
            raise ConfigurationError(f"size={size!r}: a file has from 1 to {_LARGEST} bytes", size=size)
        self.path = Path(os.fsdecode(path)).absolute()
        self.mode = mode
        number = self._open(_FLAGS[mode] | os.O_CLOEXEC | os.O_NONBLOCK, direct=direct)
        self._descriptor: OpenDescriptor | None = OpenDescriptor(number)
        try:
            self.size = self._sized(number, size)
        except BaseException:
            self.close()
            raise

    @property
    def descriptor(self) -> OpenDescriptor:
        """What keeps the descriptor open, whoever closes the file.

        Raises:
            FileError: The file was closed.
        """
        descriptor = self._descriptor
        if descriptor is None:
            raise FileError(f"{self.path} was closed", path=str(self.path))
        return descriptor

    def fileno(self) -> int:
        """Return the open descriptor's number.

        Raises:
            FileError: The file was closed.
        """
        return self.descriptor.number

    @property
    def readonly(self) -> bool:
        """Whether it can only be read."""
        return self.mode == "r"

    def close(self) -> None:
        """Close it; what is registered of it stays usable until it is deregistered. Idempotent."""
        self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<File {self.path}, {self.mode}{', closed' if self._descriptor is None else ''}>"

    def _open(self, flags: int, *, direct: bool) -> int:
        # Without O_NONBLOCK to open a FIFO would wait for its other end; on files it has no effect.
        if direct:
            if not hasattr(os, "O_DIRECT"):
                raise self._unopened("this system has no O_DIRECT: leave out direct=True")
            flags |= os.O_DIRECT
        try:
            return os.open(self.path, flags, 0o666)
        except OSError as error:
            is_refused = direct and error.errno == errno.EINVAL
            advice = "; this file system has no direct I/O: leave out direct=True" if is_refused else ""
            raise self._unopened(f"{error.strerror}{advice}") from error
        except ValueError as error:
            raise self._unopened(str(error)) from error

    def _unopened(self, why: str) -> FileError:
        return FileError(f"{self.path} can't be opened with mode {self.mode!r}: {why}", path=str(self.path))

    def _sized(self, number: int, size: int | None) -> int:
        there = os.fstat(number)
        if not stat.S_ISREG(there.st_mode):
            raise FileError(f"{self.path} is not a regular file", path=str(self.path))
        if size is None:
            if not there.st_size:
                raise FileError(f"{self.path} is empty: say with size= how many bytes to use", path=str(self.path))
            return there.st_size
        if size > there.st_size:
            if self.readonly:
                raise FileError(
                    f"{self.path} has {there.st_size:,} bytes, not {size:,}, and is opened to be read only",
                    path=str(self.path),
                )
            try:
                os.truncate(number, size)
            except OSError as error:
                raise FileError(
                    f"{self.path} can't be extended to {size:,} bytes: {error.strerror}", path=str(self.path)
                ) from error
        return size


class StoredObject:
    """An object in an object store, to be registered: ``agent.register(StoredObject("kv/block-7", 1 << 20))``.

    Nothing is looked up. The object is made, or replaced, by a transfer that writes all of it. Immutable.

    Args:
        key: The object's key, in the bucket (or under the prefix) that the agent's object backend was opened with.
        size: Its bytes.

    Raises:
        ConfigurationError: No key, or no size.
    """

    def __init__(self, key: str, size: int) -> None:
        if not key or not 0 < size <= _LARGEST:
            raise ConfigurationError(f"StoredObject({key!r}, {size!r}): an object has a key, and at least one byte")
        self.key = key
        self.size = size
        self.number = next(_numbers)

    def __repr__(self) -> str:
        return f"<StoredObject {self.key!r}, {self.size:,} bytes>"


def _close(number: int) -> None:
    with contextlib.suppress(OSError):
        os.close(number)
