"""A UCX peer: its connection info and remote keys, and when a broken connection may be made again."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from trunkline.backend.contract import Operation, Posting, Status
from trunkline.backend.plugins.ucx.remote_key import check_remote_keys
from trunkline.errors import DeadlineError, PeerGoneError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.backend.contract import ConnectionInfo, Slots
    from trunkline.backend.plugins.ucx._native import Endpoint, Worker
    from trunkline.memory.kind import MemoryKind
    from trunkline.metadata.model import RemoteKeys

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_ABORT_GRACE = 2.0


class UcxPeer:
    """One loaded peer. Any thread may call any method.

    The connection is made on first use. When it breaks, requests in flight end as FAILED, and the next ``post``
    makes a new one from the same connection info, but not within 50 ms of the last attempt (doubling up to 2 s
    while it keeps failing): until then ``post`` fails with the last reason.

    Args:
        name: The peer's agent name, for messages.
        worker: Our native worker.
        address: The peer's worker address (checked).
        scratch: Where ``connect`` reads to: a local slot and its memory, at least 8 bytes.
    """

    def __init__(
        self, name: str, worker: Worker, address: ConnectionInfo, scratch: tuple[int, NDArray[np.uint64]]
    ) -> None:
        from trunkline.backend.plugins.ucx._native import Endpoint

        self.name = name
        self.endpoint: Endpoint = Endpoint(worker, address, self)
        self._scratch = scratch
        self._lock = threading.Lock()
        self._probe: tuple[int, int, int] | None = None  # slot, address and size of something to read
        self._pause = _FIRST_PAUSE
        self._opened_at: float | None = None
        self._is_closed = False

    def load_segments(self, kind: MemoryKind, segments: NDArray[np.uint64], keys: RemoteKeys) -> Slots:
        """Keep N remote segments' keys and return their slots.

        Raises:
            MetadataDecodeError: A key is not one UCX could have made for this kind of memory.
        """
        check_remote_keys(self.name, kind, keys)
        slots = self.endpoint.load_keys(
            np.ascontiguousarray(segments), np.frombuffer(keys.data, np.uint8), keys.offset, keys.size
        )
        if len(slots):
            self._probe = (int(slots[0]), int(segments[0, 0]), min(8, int(segments[0, 1])))
        return slots

    def unload_segments(self, slots: Slots) -> None:
        """Forget remote segments; nothing posted uses them."""
        if self._probe is not None and self._probe[0] in slots:
            self._probe = None
        self.endpoint.unload_keys(slots)

    def connect(self, timeout: float) -> None:
        """Wire up and prove the path by reading up to 8 bytes of the peer's memory.

        Where none is loaded, only that its transport takes the connection is proved: UCX's flush needs no answer.
        Cross-memory attach reads a stopped process too.

        Raises:
            PeerGoneError: The connection broke: the peer is dead.
            DeadlineError: No answer in time: the peer is stopped, does not progress, or can't be reached.
        """
        started = time.monotonic()
        slot, scratch = self._scratch
        rows = [] if self._probe is None else [self._probe]
        request = self.endpoint.prepare(
            Posting(
                Operation.READ,
                np.array([scratch.ctypes.data for _ in rows], np.uint64),
                np.array([at for _, at, _ in rows], np.uint64),
                np.array([size for _, _, size in rows], np.uint64),
                np.array([slot for _ in rows], np.int32),
                np.array([remote for remote, _, _ in rows], np.int32),
                owner=scratch,
            ),
        )
        request.post()
        status = request.wait(started + timeout)
        if status == Status.FAILED:
            raise PeerGoneError(
                f"peer {self.name!r} does not answer: {request.reason} (after {time.monotonic() - started:.3f} s); "
                "it is gone, or its metadata is of an earlier life: fetch it again",
                peer=self.name,
                reason=request.reason,
            )
        if status == Status.IN_PROGRESS:
            raise DeadlineError(
                f"peer {self.name!r} did not answer within {timeout:g} s; it is stopped, busy without driving its "
                "progress, or not reachable over the network devices that UCX chose",
                peer=self.name,
                timeout=timeout,
            )

    def abort(self, reason: str) -> None:
        """Close the connection by force: everything posted to this peer becomes FAILED with ``reason`` and quiet."""
        self.endpoint.abort(reason, _ABORT_GRACE)

    def reopen(self) -> str | None:
        """Make a connection if it is time to; return None, or why not. Called by a request that needs one."""
        with self._lock:
            if self._is_closed:
                return "the peer was closed"
            if self.endpoint.is_open:
                return None
            now = time.monotonic()
            failure = self.endpoint.failure
            if self._opened_at is not None:
                if now - self._opened_at > 2 * _LONGEST_PAUSE:
                    self._pause = _FIRST_PAUSE
                elif now - self._opened_at < self._pause:
                    return failure or "the connection was closed"
                else:
                    self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
            self._opened_at = now
            return self.endpoint.open()

    @property
    def failure(self) -> str | None:
        """Why the connection is broken, or None. Cleared when a new one is made."""
        return self.endpoint.failure

    @property
    def obstacle(self) -> None:
        """None: whoever has UCX can be tried."""

    @property
    def transports(self) -> tuple[str, ...]:
        """The transports UCX chose, as ``transport/device``; empty while there is no connection."""
        return self.endpoint.transports()

    def close(self) -> None:
        """Let go of the connection for good; what is still posted becomes FAILED. Idempotent."""
        with self._lock:
            self._is_closed = True
            self.endpoint.close()

    def __repr__(self) -> str:
        state = "connected" if self.endpoint.is_open else self.failure or "not connected"
        return f"<UcxPeer {self.name!r}: {state}>"
