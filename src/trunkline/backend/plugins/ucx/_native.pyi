"""The compiled half of the UCX backend: one worker, its memory and endpoints, posted requests. No policy.

Every method may be called from any thread. One lock per worker guards UCX and the requests' state; it is never
held while the GIL is asked for, and every call that may take long runs without the GIL. A method called in a
forked child raises ForkedError; after `Worker.close`, ClosedError.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trunkline.backend import contract
from trunkline.backend.contract import Posting, Status

def ucp_version() -> tuple[int, int, int]:
    """Return the version of the libucp that is loaded: major, minor, release."""

def let_sends_wait() -> bool:
    """Keep UCX from aborting this process where it can't send an answer over TCP, for good; False if it can't be done."""

def first_bad_key(
    data: NDArray[np.uint8], offset: NDArray[np.int64], size: NDArray[np.int64], memory_type: int
) -> int | None:
    """Walk packed remote keys and return the first that UCX could not have packed, or None.

    A key is a 64-bit map of memory domains, one byte of memory type (must be `memory_type`), and per set bit of the
    map one byte n and n bytes; then at most a short trailer. Read from UCX 1.22's `ucp_rkey_pack` output and
    `ucp_ep_rkey_unpack` (fuzzed).
    """

class Worker:
    """A UCX context and worker, with the handlers for notifications (AM id 0) and failure news (AM id 1).

    Args:
        name: The agent's name: for messages and UCX's own logs.
        config: UCX settings without their `UCX_` prefix.
        notification_count: Most payloads that wait to be taken.
        notification_bytes: Most bytes of them in all.
    """

    name: str
    memory_types: int
    """Bit n: UCX's memory type n can be registered."""

    def __init__(self, name: str, config: dict[str, str], *, notification_count: int, notification_bytes: int) -> None: ...
    @property
    def is_closed(self) -> bool: ...
    def address(self) -> bytes:
        """Return the worker's address."""

    def register(self, segments: NDArray[np.uint64], memory_type: int) -> NDArray[np.int32]:
        """Map N×3 segments; all or none. Raises MemoryRegistrationError. Not at the same time as `close`."""

    def deregister(self, slots: NDArray[np.int32]) -> None:
        """Unmap. Not at the same time as `close`."""

    def pack_keys(self, slots: NDArray[np.int32]) -> tuple[bytes, NDArray[np.int64], NDArray[np.int64]]:
        """Return the slots' remote keys: data, offsets, sizes. Raises NotRegisteredError."""

    def progress(self) -> bool:
        """Drive once, unless another thread just does; return whether something can be taken."""

    def run(self, until: float) -> None:
        """Drive until there is something to take, `wake` was called, or `time.monotonic()` reaches `until`.

        Asleep on the worker's event descriptor while idle; aside (looking in every 200 µs) while others poll or wait.
        """

    def wake(self) -> None: ...
    def take_finished(self) -> list[Request]: ...
    def take_failed(self) -> list[Any]:
        """Return the owners of the endpoints whose connection failed since the last call."""

    def take_notifications(self) -> tuple[list[tuple[bytes, bool]], int]: ...
    def close(self) -> None:
        """Break all connections, drive until they are quiet (at most 2 s), free everything."""

class Endpoint:
    """A peer's address and remote keys, and at most one connection made from them.

    Args:
        worker: Our worker.
        address: The peer's worker address, checked by the caller.
        owner: Its `reopen()` is called by a `post` that finds no connection, and it is what `take_failed` returns.
    """

    address: bytes
    owner: Any

    def __init__(self, worker: Worker, address: bytes, owner: Any) -> None: ...
    def open(self) -> str | None:
        """Make a connection, unless there is one; return None, or why UCX could not. Sends nothing yet."""

    @property
    def is_open(self) -> bool: ...
    @property
    def failure(self) -> str | None:
        """Why the last connection broke; None once a new one is made."""

    def load_keys(
        self,
        segments: NDArray[np.uint64],
        data: NDArray[np.uint8],
        offset: NDArray[np.int64],
        size: NDArray[np.int64],
    ) -> NDArray[np.int32]:
        """Keep the keys of remote segments (checked by the caller), to be unpacked on first use; return their slots."""

    def unload_keys(self, slots: NDArray[np.int32]) -> None: ...
    def prepare(self, posting: Posting) -> Request: ...
    def send(self, payload: bytes, failure: bool) -> Request:
        """Post a notification (AM id 0) or failure news (AM id 1) and return its request."""

    def transports(self) -> tuple[str, ...]: ...
    def abort(self, reason: str, timeout: float) -> bool:
        """Break the connection and drive until its requests are quiet; return whether they are."""

    def close(self) -> None: ...

class Request(contract.Request):  # type: ignore[misc]  # its members are the protocol's
    """A posting bound to an endpoint.

    `post` posts rows up to a window of 16 MiB or 4096 rows and one flush; whoever drives the worker posts the next
    window when that flush has ended, then the notification. A posting of one row up to 64 KiB usually ends within
    `post`.
    """

    @property
    def status(self) -> Status: ...
