"""A file that segments are registered in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from trunkline.backend.file import OwnDescriptor, label_of
from trunkline.errors import BackendError, FileError, MemoryRegistrationError

if TYPE_CHECKING:
    from trunkline.backend.plugins.posix._native import File, Pool

UNKNOWN_BLOCK = 4096
"""What direct transfers are aligned to where the kernel does not say (before Linux 6.1, and on some file systems):
a multiple of the logical blocks of all common devices."""


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

        self._agent_name = agent_name
        try:
            own = OwnDescriptor(device, name)
        except FileError as error:
            label = label_of(device, name)
            raise MemoryRegistrationError(
                f"agent {agent_name!r}: file {label!r} can't be registered: {error}; none was registered",
                agent=agent_name,
                file=label,
            ) from error
        self.label, self.identity = own.label, own.identity
        access = own.flags & os.O_ACCMODE
        self.reads, self.writes = access != os.O_WRONLY, access != os.O_RDONLY
        self.memory_alignment, self.block = 1, 0
        if own.flags & os.O_DIRECT:
            self.memory_alignment, self.block = direct_alignment(own.number) or (UNKNOWN_BLOCK, UNKNOWN_BLOCK)
        self.native: File = File(pool, own.number, self.block)

    def check_access(self, writes: bool) -> None:
        """Raise BackendError if the descriptor does not allow this operation."""
        if not (self.writes if writes else self.reads):
            raise BackendError(
                f"agent {self._agent_name!r}: file {self.label!r} can't be {'written' if writes else 'read'}: it was "
                f"opened for {'reading' if writes else 'writing'} only",
                agent=self._agent_name,
                file=self.label,
            )
