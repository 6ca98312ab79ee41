"""A backend of one's own: moves bytes between memory and objects in an SQLite database."""

from __future__ import annotations

import ctypes
import itertools
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.backend.contract import Capabilities, Cost, Operation, Posting, Status
from trunkline.errors import BackendError, BackendUnavailableError, ClosedError, MemoryRegistrationError
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trunkline.backend.contract import BackendPeer, Slots


class SqliteBackend:
    """Objects are rows of the table ``objects``. A request is quiet when ``post`` returns.

    Args:
        agent_name: For messages.
        path: The database; made if it is not there.
    """

    name = "SQLITE"
    capabilities = Capabilities(
        frozenset({MemoryKind.DRAM}), own_kinds=frozenset({MemoryKind.OBJECT}), cost=Cost(100e-6, 10e-6, 1e9)
    )

    def __init__(self, agent_name: str, *, path: str = ":memory:") -> None:
        self._agent_name = agent_name
        self.lock = threading.Lock()
        self.segments: dict[int, tuple[int, int, str]] = {}  # start, end, and key (empty for memory)
        self._slots = itertools.count()
        self.is_closed = False
        try:
            self.database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self.database.execute("CREATE TABLE IF NOT EXISTS objects (key TEXT UNIQUE, data BLOB)")
        except sqlite3.Error as error:
            raise BackendUnavailableError(f"the database {path!r} can't be used: {error}", path=path) from error

    def register(self, kind: MemoryKind, segments: NDArray[np.uint64], names: Sequence[str] = ()) -> Slots:
        """Register memory, or objects, of which those that are not there are made of zeros."""
        self.check_open()
        if kind not in self.capabilities.local_kinds | self.capabilities.own_kinds:
            raise MemoryRegistrationError(f"SQLite holds no {kind.name}", kind=kind.name)
        if not segments[:, 1].all():
            raise MemoryRegistrationError("a segment has no bytes; none was registered")
        keys = names or [str(device) if kind is MemoryKind.OBJECT else "" for device in segments[:, 2].tolist()]
        made = [(start, start + size, key) for (start, size, _), key in zip(segments.tolist(), keys, strict=True)]
        with self.lock:
            try:
                self.database.executemany(
                    "INSERT OR IGNORE INTO objects VALUES (?, zeroblob(?))", [(key, end) for _, end, key in made if key]
                )
            except (sqlite3.Error, OverflowError) as error:
                raise MemoryRegistrationError(f"SQLite can't hold the objects: {error}; none was registered") from error
            slots = np.fromiter(itertools.islice(self._slots, len(made)), np.int32, len(made))
            self.segments.update(zip(slots.tolist(), made, strict=True))
        return slots

    def deregister(self, slots: Slots) -> None:
        """Forget segments; objects stay in the database."""
        with self.lock:
            for slot in slots.tolist():
                self.segments.pop(slot, None)

    def prepare(self, posting: Posting, peer: BackendPeer | None) -> SqliteRequest:
        """Bind a posting within the agent."""
        if peer is not None:
            raise BackendError("SQLite works within one agent")
        return SqliteRequest(self, posting)

    def close(self) -> None:
        """Close the database. Idempotent."""
        with self.lock:
            self.is_closed = True
            self.database.close()

    def check_open(self) -> None:
        """Raise ClosedError if it is closed."""
        if self.is_closed:
            raise ClosedError(f"the SQLite backend of agent {self._agent_name!r} is closed", agent=self._agent_name)


class SqliteRequest:
    """A posting; ends within ``post``, in one transaction: what fails changes nothing."""

    def __init__(self, backend: SqliteBackend, posting: Posting) -> None:
        self.owner: Any = None
        self.status, self.reason, self.completed, self.post_ns, self.total_ns = Status.IDLE, "", 0, 0, 0
        self._backend, self._posting = backend, posting

    def post(self, notification: bytes | None = None) -> Status:
        """Move everything."""
        if notification is not None:
            raise BackendError("SQLite carries no notifications")
        started = time.perf_counter_ns()
        with self._backend.lock:
            self._backend.check_open()
            self.status, self.reason, self.completed = Status.DONE, "", 0
            self._backend.database.execute("BEGIN")
            try:
                self._move()
                self._backend.database.execute("COMMIT")
                self.completed = len(self._posting.length)
            except (sqlite3.Error, LookupError) as error:
                self._backend.database.execute("ROLLBACK")
                self.status, self.reason = Status.FAILED, f"{type(error).__name__}: {error}; nothing was changed"
        self.post_ns = self.total_ns = time.perf_counter_ns() - started
        return self.status

    def _move(self) -> None:
        posting, segments, database = self._posting, self._backend.segments, self._backend.database
        columns = (
            posting.local_slot,
            posting.local_address,
            posting.remote_slot,
            posting.remote_address,
            posting.length,
        )
        for near, address, far, offset, length in zip(*(column.tolist() for column in columns), strict=True):
            for slot, start in ((near, address), (far, offset)):
                first, end, _ = segments.get(slot, (0, 0, ""))
                if not first <= start <= start + length <= end:
                    raise LookupError(f"{length} bytes at {start:#x} are not in registered segment {slot}")
            row = database.execute("SELECT rowid FROM objects WHERE key = ?", (segments[far][2],)).fetchone()
            if row is None:
                raise LookupError(f"there is no object {segments[far][2]!r} any more")
            with database.blobopen("objects", "data", row[0]) as blob:
                blob.seek(offset)
                if posting.operation is Operation.WRITE:
                    blob.write(ctypes.string_at(address, length))
                else:
                    ctypes.memmove(address, blob.read(length), length)

    def poll(self) -> Status:
        """Return the status."""
        return self.status

    def wait(self, until: float) -> Status:
        """Return the status: nothing is ever under way."""
        del until
        return self.status

    def stop(self) -> None:
        """Nothing is left to stop."""
