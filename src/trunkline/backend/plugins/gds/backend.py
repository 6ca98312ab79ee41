"""The two backends over cuFile: in batches, and with several threads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from trunkline.backend.contract import Capabilities
from trunkline.backend.plugins.gds.carrier import BatchCarrier, CallCarrier
from trunkline.backend.plugins.gds.cufile import CuFileError
from trunkline.backend.plugins.gds.library import Library
from trunkline.backend.plugins.gds.pool import Pool
from trunkline.backend.plugins.gds.request import GdsRequest
from trunkline.backend.plugins.gds.segment import RegisteredBuffer, RegisteredFile, devices_of
from trunkline.errors import (
    BackendError,
    BackendUnavailableError,
    ConfigurationError,
    FileError,
    MemoryRegistrationError,
)
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from trunkline.backend.contract import BackendPeer, Posting, Request, Slots
    from trunkline.backend.plugins.gds.segment import Resource

BATCH_POOL_SIZE, BATCH_LIMIT, MAX_REQUEST_SIZE = 16, 128, 16 << 20
"""NIXL's defaults."""


class CuFileBackend:
    """What both variants have in common."""

    name: str
    capabilities = Capabilities(
        frozenset({MemoryKind.DRAM, MemoryKind.VRAM}), own_kinds=frozenset({MemoryKind.FILE}), progress=True
    )

    def __init__(self, pool: Pool, library: Library) -> None:
        self._pool = pool
        self._library = library
        self._buffers: dict[tuple[int, int, int], RegisteredBuffer] = {}
        self._files: dict[int, RegisteredFile] = {}
        """By device number, the one that was registered last."""

    def register(self, kind: MemoryKind, segments: NDArray[np.uint64], names: Sequence[str] = ()) -> Slots:
        """Register N×3 segments (address, length, device); all or none.

        A file's descriptor is duplicated. Where its name says how to open it (``rw,direct:/path``) that is done, and
        its device is only a number. One number stands for one file at a time.

        Raises:
            MemoryRegistrationError: One can't be registered; none was.
        """
        pool = self._pool
        pool.check_open()
        if kind not in self.capabilities.local_kinds | self.capabilities.own_kinds:
            raise MemoryRegistrationError(
                f"agent {pool.agent_name!r}: the {self.name} backend can't register {kind.name} memory "
                "(only DRAM, VRAM and FILE)",
                agent=pool.agent_name,
                kind=kind.name,
            )
        devices = devices_of(kind is MemoryKind.VRAM, segments)
        with pool.lock:  # cuFile's calls are made under it: two registrations of the same memory share one
            pool.check_open()
            held: list[Resource] = []
            files: dict[tuple[int, str], RegisteredFile] = {}
            row = 0
            try:
                for row, (address, length, device) in enumerate(segments.tolist()):
                    is_file = kind is MemoryKind.FILE
                    if length == 0 or address + length >= 2 ** (63 if is_file else 64) or not (is_file or address):
                        raise ValueError("it is empty, or nowhere")
                    if is_file:
                        held.append(self._file(files, device, names[row] if names else ""))
                    else:
                        held.append(self._buffer(address, length, int(devices[row])))
                return pool.table.add(segments, devices, held)
            except (ValueError, FileError, BackendError) as error:
                pool.drop(held)
                address, length, device = segments[row].tolist()
                named = f" of {names[row]!r}" if names else ""
                raise MemoryRegistrationError(
                    f"agent {pool.agent_name!r}: the {self.name} backend could not register segment {row} of "
                    f"{len(segments)} ({kind.name}{named}, {length} bytes at {address:#x}, device {device}): {error}; "
                    "none was registered",
                    agent=pool.agent_name,
                    row=row,
                    address=address,
                    length=length,
                ) from error

    def _file(self, files: dict[tuple[int, str], RegisteredFile], device: int, name: str) -> RegisteredFile:
        found = files.get((device, name))
        if found is not None:
            found.holders += 1
            return found
        made = RegisteredFile(self._library, device, name)
        other = self._files.get(device)
        if other is not None and other.holders and other.identity != made.identity:
            made.end()
            raise ValueError(
                f"its device number stands for {other.name!r}, or for the same file opened otherwise, which is "
                "registered: deregister that first, or give this one another number"
            )
        files[device, name] = self._files[device] = made
        return made

    def _buffer(self, address: int, length: int, device: int) -> RegisteredBuffer:
        """Return the registration of some memory: cuFile refuses to have the same twice."""
        found = self._buffers.get((address, length, device))
        if found is not None and found.holders:
            found.holders += 1
            return found
        self._buffers[address, length, device] = made = RegisteredBuffer(self._library, address, length, device)
        return made

    def deregister(self, slots: Slots) -> None:
        """Forget registered segments. Of what a running transfer uses, cuFile lets go when it has ended."""
        pool = self._pool
        pool.check_open()
        with pool.lock:
            pool.drop(pool.table.remove(slots))
            self._buffers = {key: buffer for key, buffer in self._buffers.items() if buffer.holders}
            self._files = {device: file for device, file in self._files.items() if file.holders}

    def prepare(self, posting: Posting, peer: BackendPeer | None) -> GdsRequest:
        """Bind a posting; ``peer`` must be None."""
        self._pool.check_open()
        if peer is not None:
            raise BackendError(f"the {self.name} backend works within one agent; it can't reach peer {peer.name!r}")
        return GdsRequest(self._pool, posting)

    def progress(self) -> bool:
        """Return whether finished requests can be taken; the backend's threads need no driving."""
        self._pool.check_open()
        return bool(self._pool.finished)

    def run(self, until: float) -> None:
        """Sleep until a request has finished, ``wake`` or ``until``."""
        pool = self._pool
        pool.check_open()
        pool.wait(lambda: pool.finished or pool.is_woken or pool.is_closed, until)
        with pool.lock:
            pool.is_woken = False
        pool.check_open()

    def wake(self) -> None:
        """Make ``run`` return soon."""
        self._pool.check_open()
        with self._pool.lock:
            self._pool.is_woken = True
        self._pool.wake()

    def take_finished(self) -> list[Request]:
        """Return the requests that became quiet and that nobody's ``poll`` or ``wait`` has reported."""
        pool = self._pool
        pool.check_open()
        with pool.lock:
            finished: list[Request] = [*pool.finished]
            pool.finished.clear()
            return finished

    def take_failed_peers(self) -> list[BackendPeer]:
        """Return nothing: there are no peers."""
        return []

    def close(self) -> None:
        """End everything: waits until cuFile has let go of the memory of requests in flight, which are FAILED."""
        self._pool.close()

    def __repr__(self) -> str:
        state = ": closed" if self._pool.is_closed else ""
        return f"<{type(self).__name__} of {self._pool.agent_name!r} over {self._library.path}{state}>"


class GdsBackend(CuFileBackend):
    """Moves bytes between memory of GPUs or the host and files, in batches of cuFile. It has not run on a GPU yet.

    Args:
        agent_name: For messages and the names of threads.
        batch_pool_size: How many batches may be under way at once; each has a thread, which mostly sleeps.
        batch_limit: Most pieces of a batch; cuFile allows up to ``io_batchsize`` of its cufile.json (128).
        max_request_size: Most bytes of a piece; what follows one another on both sides is joined up to that.
        library: Path of ``libcufile.so``; default ``$TRUNKLINE_CUFILE_LIBRARY``, else NVIDIA's wheel, else the
            system's.

    Raises:
        BackendUnavailableError: cuFile, the CUDA driver, a GPU or a kernel module is missing; says which.
        ConfigurationError: A number is not one.
    """

    name = "GDS"

    def __init__(
        self,
        agent_name: str,
        *,
        batch_pool_size: int = BATCH_POOL_SIZE,
        batch_limit: int = BATCH_LIMIT,
        max_request_size: int = MAX_REQUEST_SIZE,
        library: str | os.PathLike[str] | None = None,
    ) -> None:
        count = _positive("batch_pool_size", batch_pool_size)
        limit = _positive("batch_limit", batch_limit)
        size = _positive("max_request_size", max_request_size)
        opened = Library.open(library)
        carriers: list[BatchCarrier] = []
        try:
            for _ in range(count):
                carriers.append(BatchCarrier(opened, limit))  # noqa: PERF401  those made are closed if one fails
        except CuFileError as error:
            made = len(carriers)
            for carrier in carriers:
                carrier.close()
            opened.close()
            raise BackendUnavailableError(
                f"cuFile made {made} of {count} batches of {limit} entries (batch_pool_size, batch_limit): {error}",
                code=error.code,
            ) from error
        super().__init__(Pool(self.name, agent_name, opened, [*carriers], lambda _: limit, size), opened)


class GdsMtBackend(CuFileBackend):
    """Moves bytes between memory of GPUs or the host and files, by cuFile's plain calls from several threads. It has
    not run on a GPU yet.

    Args:
        agent_name: For messages and the names of threads.
        thread_count: How many threads; default (and 0) half of the processors.
        library: Path of ``libcufile.so``; default ``$TRUNKLINE_CUFILE_LIBRARY``, else NVIDIA's wheel, else the
            system's.

    Raises:
        BackendUnavailableError: cuFile, the CUDA driver, a GPU or a kernel module is missing; says which.
        ConfigurationError: ``thread_count`` is no number.
    """

    name = "GDS_MT"

    def __init__(
        self,
        agent_name: str,
        *,
        thread_count: int | None = None,
        library: str | os.PathLike[str] | None = None,
    ) -> None:
        half = max(1, (os.cpu_count() or 1) // 2)
        count = _positive("thread_count", half if thread_count in {None, 0, "0"} else thread_count)
        opened = Library.open(library)
        carriers = [CallCarrier(opened) for _ in range(count)]

        def chunk(left: int) -> int:
            return max(1, left // (2 * count))  # so that the threads end at about the same time

        super().__init__(Pool(self.name, agent_name, opened, [*carriers], chunk, MAX_REQUEST_SIZE), opened)


def _positive(option: str, value: object) -> int:
    try:
        number = int(value) if isinstance(value, int | str) else 0  # NIXL's API gives texts
    except ValueError:
        number = 0
    if not 0 < number < 2**31:
        raise ConfigurationError(f"{option}={value!r}: a whole number above 0 is needed", option=option)
    return number
