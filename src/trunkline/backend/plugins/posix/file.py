"""What can be registered as a file: an open descriptor, or a path with the mode to open it in."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from trunkline.errors import BackendError, MemoryRegistrationError

if TYPE_CHECKING:
    from trunkline.backend.plugins.posix._native import File, Pool

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

UNKNOWN_BLOCK = 4096
"""What direct transfers are aligned to where the kernel does not say (before Linux 6.1, and on some file systems):
a multiple of the logical blocks of all common devices."""


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


class OpenFile:
    """A file that segments are registered in.

    Args:
        agent_name: For messages.
        pool: The backend's pool, whose jobs use the file.
        device: An open descriptor; it is duplicated.
        name: The file's path, for messages; or a path and how to open it, and then ``device`` is not looked at.

    Attributes:
        label: What to call it in messages.
        reads: Whether the descriptor allows reading.
        writes: Whether it allows writing.
        block: What offsets and lengths of direct transfers are multiples of; 0 for a descriptor without O_DIRECT.
        memory_alignment: What addresses of direct transfers are multiples of; else 1.
        identity: The same for the same file opened in the same way.
        native: The descriptor as jobs use it.

    Raises:
        MemoryRegistrationError: It can't be used.
    """

    def __init__(self, agent_name: str, pool: Pool, device: int, name: str) -> None:
        from trunkline.backend.plugins.posix._native import File, direct_alignment

        mode = PathMode.parse(name)
        self._agent_name = agent_name
        if mode is None:
            self.label = name or f"descriptor {device}"
            try:
                descriptor = fcntl.fcntl(device, fcntl.F_DUPFD_CLOEXEC, 0)
            except (OSError, OverflowError) as error:
                raise self._refusal(
                    f"descriptor {device} can't be duplicated ({words(error)}): give the number of an open descriptor "
                    "as the device, or a path as 'rw:/path'"
                ) from error
        else:
            self.label = mode.path
            try:
                # Without O_NONBLOCK, opening a FIFO would wait for its other end.
                descriptor = os.open(mode.path, mode.flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
            except (OSError, ValueError) as error:
                raise self._refusal(f"it can't be opened as {name.partition(':')[0]!r} ({words(error)})") from error
        try:
            flags = self._check(descriptor)
            found = os.fstat(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self.identity = (found.st_dev, found.st_ino, flags & _TELLING)
        access = flags & os.O_ACCMODE
        self.reads, self.writes = access != os.O_WRONLY, access != os.O_RDONLY
        self.memory_alignment, self.block = 1, 0
        if flags & os.O_DIRECT:
            self.memory_alignment, self.block = direct_alignment(descriptor) or (UNKNOWN_BLOCK, UNKNOWN_BLOCK)
        self.native: File = File(pool, descriptor, self.block)

    def _check(self, descriptor: int) -> int:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            what = next((words for is_kind, words in _KINDS.items() if is_kind(mode)), "not a file")
            raise self._refusal(f"it is {what}: only regular files and block devices have offsets to transfer at")
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        if flags & os.O_APPEND:
            raise self._refusal("it was opened with O_APPEND, and then Linux writes at the end whatever the offset")
        if flags & os.O_PATH:
            raise self._refusal("it was opened with O_PATH, which allows neither reading nor writing")
        return flags

    def check_access(self, writes: bool) -> None:
        """Raise BackendError if the descriptor does not allow this operation."""
        if not (self.writes if writes else self.reads):
            raise BackendError(
                f"agent {self._agent_name!r}: file {self.label!r} can't be {'written' if writes else 'read'}: it was "
                f"opened for {'reading' if writes else 'writing'} only",
                agent=self._agent_name,
                file=self.label,
            )

    def _refusal(self, why: str) -> MemoryRegistrationError:
        return MemoryRegistrationError(
            f"agent {self._agent_name!r}: file {self.label!r} can't be registered: {why}; none was registered",
            agent=self._agent_name,
            file=self.label,
        )


def words(error: BaseException) -> str:
    """Return an error's errno and text."""
    if isinstance(error, OSError) and error.errno is not None:
        return errno_words(error.errno)
    return str(error)


def errno_words(number: int) -> str:
    """Return the name and the text of an errno: ``ENOSPC: No space left on device``."""
    return f"{errno.errorcode.get(number, number)}: {os.strerror(number)}"
