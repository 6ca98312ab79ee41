"""What backends take for a file: an open descriptor, or a path with the mode to open it in. Linux only."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import NamedTuple

from trunkline.errors import FileError

_ACCESS = {"ro": os.O_RDONLY, "rw": os.O_RDWR}
_FLAGS = {"direct": os.O_DIRECT, "sync": os.O_SYNC, "noatime": os.O_NOATIME, "create": os.O_CREAT}
_TELLING = os.O_ACCMODE | os.O_DIRECT | os.O_SYNC | os.O_NOATIME
"""Flags of a descriptor that matter to transfers."""

_KINDS = {
    stat.S_ISDIR: "a directory",
    stat.S_ISFIFO: "a FIFO",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a character device",
}


class PathMode(NamedTuple):
    """A path and how it is opened, as NIXL writes it: ``rw,direct:/mnt/nvme/cache``."""

    path: str
    flags: int

    @classmethod
    def parse(cls, text: str) -> PathMode | None:
        """Return what a name asks for, or None if it is a mere name.

        A name asks to be opened if it begins with ``ro`` or ``rw``, any of ``,direct ,sync ,noatime ,create``, and a
        colon.
        """
        modes, colon, path = text.partition(":")
        access, *flags = modes.split(",")
        if not colon or not path or access not in _ACCESS or not all(flag in _FLAGS for flag in flags):
            return None
        combined = _ACCESS[access]
        for flag in flags:
            combined |= _FLAGS[flag]
        return cls(path, combined)


class OwnDescriptor:
    """A descriptor of a backend's own, of a file with offsets to transfer at; its maker closes it.

    Args:
        device: An open descriptor; it is duplicated.
        name: The file's path, for messages; or a path and how to open it, and then ``device`` is not looked at.

    Attributes:
        number: The descriptor.
        label: What to call the file in messages.
        flags: What ``fcntl`` says of it.
        identity: The same for the same file opened in the same way.

    Raises:
        FileError: It can't be used; the message says why, and leaves the file's name to the caller.
    """

    def __init__(self, device: int, name: str) -> None:
        mode = PathMode.parse(name)
        self.label = label_of(device, name)
        if mode is None:
            try:
                self.number = fcntl.fcntl(device, fcntl.F_DUPFD_CLOEXEC, 0)
            except (OSError, OverflowError) as error:
                raise FileError(
                    f"descriptor {device} can't be duplicated ({words(error)}): give the number of an open descriptor "
                    "as the device, or a path as 'rw:/path'"
                ) from error
        else:
            try:
                # Without O_NONBLOCK, opening a FIFO would wait for its other end.
                self.number = os.open(mode.path, mode.flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
            except (OSError, ValueError) as error:
                raise FileError(f"it can't be opened as {name.partition(':')[0]!r} ({words(error)})") from error
        try:
            found = os.fstat(self.number)
            self.flags = self._check(found.st_mode)
        except BaseException:
            os.close(self.number)
            raise
        self.identity = (found.st_dev, found.st_ino, self.flags & _TELLING)

    def _check(self, mode: int) -> int:
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            what = next((words for is_kind, words in _KINDS.items() if is_kind(mode)), "not a file")
            raise FileError(f"it is {what}: only regular files and block devices have offsets to transfer at")
        flags = fcntl.fcntl(self.number, fcntl.F_GETFL)
        if flags & os.O_APPEND:
            raise FileError("it was opened with O_APPEND, and then Linux writes at the end whatever the offset")
        if flags & os.O_PATH:
            raise FileError("it was opened with O_PATH, which allows neither reading nor writing")
        return flags


def label_of(device: int, name: str) -> str:
    """Return what to call a file in messages."""
    mode = PathMode.parse(name)
    return mode.path if mode is not None else name or f"descriptor {device}"


def words(error: BaseException) -> str:
    """Return an error's errno and text."""
    if isinstance(error, OSError) and error.errno is not None:
        return errno_words(error.errno)
    return str(error)


def errno_words(number: int) -> str:
    """Return the name and the text of an errno: ``ENOSPC: No space left on device``."""
    return f"{errno.errorcode.get(number, number)}: {os.strerror(number)}"
