"""The POSIX backend: its files, its threads."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import numpy as np

from trunkline.backend.contract import Capabilities, Cost, Operation, Posting
from trunkline.backend.file import PathMode, words
from trunkline.backend.plugins.posix.file import OpenFile
from trunkline.backend.plugins.posix.layout import lay_out
from trunkline.backend.plugins.posix.segments import MEMORY, Segments
from trunkline.errors import (
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    MemoryRegistrationError,
    NotRegisteredError,
)
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from trunkline.backend.contract import BackendPeer, Request, Slots
    from trunkline.backend.plugins.posix.layout import Layout
    from trunkline.backend.plugins.posix.request import PosixRequest

DEFAULT_THREADS = 4


class PosixBackend:
    """Moves bytes between memory and files: ``preadv`` and ``pwritev`` by threads of its own, without the GIL.

    A request's rows are sorted by file and offset, and rows that are adjacent in the file become one system call,
    whatever order they are given in. See ``docs/files.md`` for what can be registered.

    Args:
        agent_name: For messages and the threads' names.
        fsync: Whether a WRITE is DONE only once the device has it (``fdatasync`` of each of its files).
        threads: How many system calls are under way at once.

    Raises:
        BackendUnavailableError: The compiled module is missing.
        ConfigurationError: ``threads`` is not from 1 to 256.
    """

    name = "POSIX"
    capabilities = Capabilities(
        frozenset({MemoryKind.DRAM}),
        own_kinds=frozenset({MemoryKind.FILE}),
        progress=True,
        queries=True,
        cost=Cost(20e-6, 2.5e-6, 5e9),  # from and to the page cache
    )

    def __init__(self, agent_name: str, *, fsync: bool = False, threads: int = DEFAULT_THREADS) -> None:
        try:
            from trunkline.backend.plugins.posix._native import Pool
        except ImportError as error:
            raise BackendUnavailableError(
                f"Trunkline's module for files could not be imported ({error}); it is built when Trunkline is "
                "installed, on Linux: reinstall with a C compiler (pip install Cython setuptools; "
                "pip install --no-build-isolation --force-reinstall --no-deps trunkline)",
            ) from error
        if not 1 <= threads <= 256:
            raise ConfigurationError(f"threads={threads!r}: the POSIX backend takes from 1 to 256", threads=threads)
        self.fsync = fsync
        self.pool = Pool(agent_name)
        self._agent_name = agent_name
        self._lock = threading.Lock()  # guards what is registered
        self._segments = Segments()
        self._files: dict[int, OpenFile] = {}
        self._slots_in: dict[int, int] = {}  # per file, how many
        self._next_file = 0
        self._threads = [
            threading.Thread(target=self.pool.work, name=f"trunkline-posix-{agent_name}-{number}", daemon=True)
            for number in range(threads)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            self.close()
            raise BackendUnavailableError(
                f"the POSIX backend of agent {agent_name!r} can't have {threads} threads ({error}): ask for fewer, or "
                "raise the limit of processes",
            ) from error

    def register(self, kind: MemoryKind, segments: NDArray[np.uint64], names: Sequence[str] = ()) -> Slots:
        """Register N×3 segments (address or offset, length, descriptor); all or none.

        Args:
            kind: DRAM or FILE.
            segments: The segments.
            names: For FILE each one's path, for messages, or how to open it (``rw,create:/path``): then the device is
                only a number. One number stands for one file at a time.

        Raises:
            MemoryRegistrationError: One can't be registered; none was.
        """
        self.pool.check()
        if kind not in (MemoryKind.DRAM, MemoryKind.FILE):
            raise MemoryRegistrationError(
                f"agent {self._agent_name!r}: the POSIX backend can't register {kind.name} memory (only DRAM and FILE)",
                agent=self._agent_name,
                kind=kind.name,
            )
        address, length, device = segments.T
        if kind is MemoryKind.DRAM:
            bad = (address == 0) | (length == 0) | (address + length < address)
        else:
            end = address + length
            bad = (length == 0) | (end < address) | (end >= np.uint64(1 << 63))
        if bad.any():
            row = int(np.argmax(bad))
            raise MemoryRegistrationError(
                f"agent {self._agent_name!r}: segment {row} of {len(segments)} ({length[row]} bytes at "
                f"{int(address[row]):#x}) is not {'memory' if kind is MemoryKind.DRAM else 'a range of a file'}; none "
                "was registered",
                agent=self._agent_name,
                row=row,
            )
        if kind is MemoryKind.DRAM:
            with self._lock:
                self.pool.check()
                return self._segments.add(np.full(len(segments), MEMORY, np.int64), device)
        return self._register_files(device, names)

    def _register_files(self, device: NDArray[np.uint64], names: Sequence[str]) -> Slots:
        """Open each file once, whatever number of segments it has."""
        wanted: list[tuple[int, str]]
        if names:
            numbers: dict[tuple[int, str], int] = {}
            which = np.array(
                [numbers.setdefault(each, len(numbers)) for each in zip(device.tolist(), names, strict=True)], np.intp
            )
            wanted = list(numbers)
        else:
            distinct, which = np.unique(device, return_inverse=True)
            wanted = [(each, "") for each in distinct.tolist()]
        opened: list[OpenFile] = []
        try:
            for each, name in wanted:
                opened.append(OpenFile(self._agent_name, self.pool, each, name))
            with self._lock:
                self.pool.check()  # who closes it from now on waits, and closes these too
                return self._add_files(opened, which, device)
        except BaseException:
            for file in opened:
                file.native.close()
            raise

    def _add_files(self, opened: list[OpenFile], which: NDArray[np.intp], device: NDArray[np.uint64]) -> Slots:
        """Take files (under the lock); those that we have, opened in the same way, are closed again."""
        known = {file.identity: number for number, file in self._files.items()}
        numbers = [known.setdefault(file.identity, self._next_file + row) for row, file in enumerate(opened)]
        files = np.array(numbers, np.int64)[which]
        row = self._segments.ambiguous(files, device)
        if row is not None:
            raise MemoryRegistrationError(
                f"agent {self._agent_name!r}: file {opened[which[row]].label!r} can't be registered: device "
                f"{device[row]} stands for another file, or the same one opened otherwise, that is registered: "
                "deregister that first, or give this one another number; none was registered",
                agent=self._agent_name,
                row=row,
            )
        self._next_file += len(opened)
        for number, file in zip(numbers, opened, strict=True):
            if number in self._files:
                file.native.close()
            else:
                self._files[number] = file
        for number, count in zip(*(part.tolist() for part in np.unique(files, return_counts=True)), strict=True):
            self._slots_in[number] = self._slots_in.get(number, 0) + count
        return self._segments.add(files, device)

    def deregister(self, slots: Slots) -> None:
        """Forget registered segments. A file is closed with its last one, once nothing that was posted uses it."""
        self.pool.check()  # also before the lock, which a child process might find taken
        with self._lock:
            self.pool.check()
            files = self._segments.remove(slots)
            for number, count in zip(*(part.tolist() for part in np.unique(files, return_counts=True)), strict=True):
                if number == MEMORY:
                    continue
                self._slots_in[number] -= count
                if not self._slots_in[number]:
                    del self._slots_in[number]
                    self._files.pop(number).native.close()

    def prepare(self, posting: Posting, peer: BackendPeer | None) -> PosixRequest:
        """Bind a posting; ``peer`` must be None.

        Raises:
            BackendError: There is a peer, a file was not opened for this operation, or a direct write does not begin
                and end with a block.
            NotRegisteredError: A segment is not registered any more.
        """
        from trunkline.backend.plugins.posix.request import PosixRequest

        self.pool.check()
        if peer is not None:
            raise BackendError(f"the POSIX backend works within one agent; it can't reach peer {peer.name!r}")
        slots = np.unique(np.concatenate([posting.local_slot, posting.remote_slot]))
        with self._lock:
            self.pool.check()
            tenancy = self._segments.tenancy(slots)
            if (tenancy < 0).any():
                raise NotRegisteredError(
                    f"agent {self._agent_name!r}: memory or a file of this transfer is not registered with the POSIX "
                    "backend",
                    agent=self._agent_name,
                )
            numbers, which = np.unique(self._segments.files(posting.remote_slot), return_inverse=True)
            if (numbers == MEMORY).any():
                raise BackendError("the POSIX backend moves bytes between memory and files, not between memory")
            files = [self._files[number] for number in numbers.tolist()]
        writes = posting.operation is Operation.WRITE
        for file in files:
            file.check_access(writes)
        layout = lay_out(
            posting,
            which.astype(np.int32),
            np.array([file.block for file in files], np.int64),
            np.array([file.memory_alignment for file in files], np.int64),
        )
        if writes:
            _check_direct_writes(layout, files)
        return PosixRequest(self, posting, files, layout, slots, tenancy)

    def holds(self, slots: Slots, tenancy: NDArray[np.int64]) -> bool:
        """Whether these slots are still those of the segments they were (for requests)."""
        with self._lock:
            return bool((self._segments.tenancy(slots) == tenancy).all())

    def query(self, kind: MemoryKind, names: Sequence[str]) -> list[Mapping[str, str] | None]:
        """Say of each path what is there: ``size``, ``mtime`` and ``mode``; None for what is not there.

        Raises:
            BackendError: It could not be found out.
        """
        self.pool.check()
        if kind is not MemoryKind.FILE:
            raise BackendError(f"the POSIX backend can be asked about files, not about {kind.name} memory")
        return [_query(name) for name in names]

    def progress(self) -> bool:
        """Return whether finished requests can be taken."""
        return self.pool.progress()

    def run(self, until: float) -> None:
        """Sleep until finished requests can be taken, ``wake`` was called, or ``until``."""
        self.pool.run(until)

    def wake(self) -> None:
        """Make ``run`` return soon."""
        self.pool.wake()

    def take_finished(self) -> list[Request]:
        """Return the requests that became quiet and that nobody's ``poll`` or ``wait`` has reported."""
        return self.pool.take_finished()

    def take_failed_peers(self) -> list[BackendPeer]:
        """Return nothing: there are no peers."""
        return []

    def close(self) -> None:
        """Fail what is posted, wait for the system calls under way, end the threads, close the files. Idempotent."""
        if not self.pool.close():
            return  # a forked child's copy: nothing of it is here
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        with self._lock:
            for file in self._files.values():
                file.native.close()
            self._files.clear()
            self._slots_in.clear()

    def __repr__(self) -> str:
        return f"<PosixBackend of {self._agent_name!r}{': closed' if self.pool.is_closed else ''}>"


def _check_direct_writes(layout: Layout, files: list[OpenFile]) -> None:
    """Refuse to write parts of blocks: the rest would have to be read first, and might change meanwhile."""
    block = np.maximum(np.array([file.block for file in files], np.int64), 1)[layout.file]
    bad = (layout.offset % block != 0) | (layout.length % block != 0)
    if bad.any():
        call = int(np.argmax(bad))
        file = files[layout.file[call]]
        raise BackendError(
            f"file {file.label!r} was opened with O_DIRECT, so what is written must begin and end at multiples of "
            f"{file.block} bytes in the file, not at {layout.offset[call]} with {layout.length[call]} bytes (rows that "
            "are adjacent in the file count as one): pad them, or open it without O_DIRECT",
            file=file.label,
        )


def _query(name: str) -> Mapping[str, str] | None:
    mode = PathMode.parse(name)
    path = name if mode is None else mode.path
    try:
        found = os.stat(path)  # noqa: PTH116  no need for a Path
        size = found.st_size
        if stat.S_ISBLK(found.st_mode):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.lseek(descriptor, 0, os.SEEK_END)
            finally:
                os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise BackendError(f"nothing could be found out about file {path!r} ({words(error)})", file=path) from error
    return {"size": str(size), "mtime": str(int(found.st_mtime)), "mode": str(found.st_mode)}
