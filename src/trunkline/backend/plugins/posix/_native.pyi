"""The compiled half of the POSIX backend: files in use, jobs, and the queue that threads work off. No policy.

Every method may be called from any thread. One lock per pool guards the jobs' state; it is never held while the GIL is
asked for, and no system call on a file runs under it. A method called in a forked child raises ForkedError.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trunkline.backend.contract import Status

def direct_alignment(descriptor: int) -> tuple[int, int] | None:
    """Return what direct transfers of a file must be aligned to in memory and in the file; None if the kernel won't say."""

class Pool:
    """A queue of jobs.

    Args:
        name: The agent's name, for messages.
    """

    def __init__(self, name: str) -> None: ...
    @property
    def is_closed(self) -> bool: ...
    def check(self) -> None:
        """Raise ClosedError or ForkedError if it can't be used."""

    def work(self) -> None:
        """Carry out jobs, without the GIL, until the pool is closed."""

    def progress(self) -> bool:
        """Return whether there is a finished job to take."""

    def run(self, until: float) -> None:
        """Sleep until there is, `wake` was called, or `time.monotonic()` reaches `until`."""

    def wake(self) -> None: ...
    def take_finished(self) -> list[Any]:
        """Return the owners of the jobs that ended and that nobody's `poll` or `wait` has seen."""

    def close(self) -> bool:
        """Make `work` return and fail what nobody is at; what somebody is at fails when he returns from it.

        In a forked child nothing is done, and False returned.
        """

class File:
    """An open descriptor, which this object now owns.

    Args:
        pool: Whose jobs use it.
        descriptor: The descriptor.
        block: For a descriptor with O_DIRECT, the block that offsets and lengths are multiples of; else 0.
    """

    def __init__(self, pool: Pool, descriptor: int, block: int) -> None: ...
    @property
    def descriptor(self) -> int:
        """The descriptor; -1 once it is closed."""

    def close(self) -> None:
        """Close it, as soon as no job that runs uses it."""

class Job:
    """Calls that move bytes between files and memory, carried out in any order.

    Args:
        pool: Whose threads carry it out.
        files: The files it uses.
        writes: Whether it writes the files.
        syncs: Whether, after all calls, each file is synced with its device (`fdatasync`).
        file: Per call, an index of `files`.
        offset: Per call, where in the file.
        length: Per call, how many bytes.
        first: Per call its first piece, and at the end how many pieces there are.
        bounce: Per call, whether it goes through an aligned buffer; others have at most IOV_MAX pieces.
        pieces: Address and length of memory.
        done: Set to 1 for each call that was carried out; to 0 by `post`.
    """

    def __init__(
        self,
        pool: Pool,
        files: list[File],
        writes: bool,
        syncs: bool,
        file: NDArray[np.int32],
        offset: NDArray[np.int64],
        length: NDArray[np.int64],
        first: NDArray[np.int64],
        bounce: NDArray[np.uint8],
        pieces: NDArray[np.uint64],
        done: NDArray[np.uint8],
    ) -> None: ...
    def post(self, owner: object) -> Status:
        """Start. `owner` is kept until the end was seen, and is what `Pool.take_finished` returns."""

    def poll(self) -> Status:
        """Return the status. A caller that polls in a tight loop sleeps here, for 0.1 ms at most or until the end."""

    def wait(self, until: float) -> Status: ...
    def stop(self) -> None: ...
    @property
    def status(self) -> Status: ...
    @property
    def landed(self) -> int:
        """How many bytes were moved."""

    @property
    def total_ns(self) -> int: ...
    @property
    def failure(self) -> tuple[int, int, int, int, int] | None:
        """The first failure: an errno (or -1: the file ended, -2: a write was answered with 0 bytes), the index of the
        file, the offset, the file's size (-1: unknown), and whether it was the syncing that failed.
        """
