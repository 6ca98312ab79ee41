"""The client: keys, transactions, leases and watches of one etcd cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from trunkline.clock import SYSTEM_CLOCK, Clock, Deadline
from trunkline.errors import StoreRequestError
from trunkline.etcd.connection import Connection
from trunkline.etcd.lease import Lease
from trunkline.etcd.lease_keeper import LeaseKeeper
from trunkline.etcd.messages import (
    COMPACT,
    LEASE_GRANT,
    LEASE_REVOKE,
    LEASE_TIME_TO_LIVE,
    PUT,
    RANGE,
    STATUS,
    TXN,
)
from trunkline.etcd.value import KeyValue, Listing, Outcome
from trunkline.etcd.watch_stream import WatchStream

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from trunkline.etcd.config import EtcdConfig
    from trunkline.etcd.watch import Watch


@dataclass(frozen=True, slots=True)
class Status:
    """One member's account of itself.

    Attributes:
        version: Its version.
        leader: The id of the leader it follows; 0 for none.
        size: Bytes of its database's file.
        errors: What it says is wrong, alarms among it.
    """

    version: str
    leader: int
    size: int = 0
    errors: tuple[str, ...] = ()


class EtcdClient:
    """A connection to a cluster, its leases and its watches. Any thread may use it.

    Nothing is sent before the first call. All calls wait at most ``timeout`` seconds (None: for ever) and raise what
    :meth:`trunkline.etcd.connection.Connection.call` says. Use :func:`trunkline.etcd.sharing.open_client` to share
    one client, and so one watch stream and one keep-alive thread, in a process.

    Args:
        config: Where and who.
        clock: Measures time-outs and refreshes.
    """

    def __init__(self, config: EtcdConfig, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.config = config
        self._clock = clock
        self._connection = Connection(config, clock=clock)
        self._keeper = LeaseKeeper(Connection(config, clock=clock), clock)
        self._watch_stream = WatchStream(self._connection, clock, self._list_for_watch, self._read_for_watch)

    @property
    def is_foreign(self) -> bool:
        """Whether this process is a forked child of the one that made the client."""
        return self._connection.is_foreign

    def range(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        keys_only: bool = False,
        revision: int = 0,
        timeout: float | None,
    ) -> Listing:
        """Read one key, or all from ``key`` up to ``range_end``: as of now (linearizable), or as of a revision."""
        fields = {"key": key, "range_end": range_end, "keys_only": keys_only, "revision": revision}
        response = self._call(RANGE, "get", timeout, key=key, fields=fields)
        return Listing(_entries(response.kvs), response.header.revision, response.header.cluster_id)

    def put(self, key: bytes, value: bytes, *, lease: int = 0, timeout: float | None) -> int:
        """Write one key and return the revision. Repeated after an outage: the value may be written twice."""
        fields = {"key": key, "value": value, "lease": lease}
        return int(self._call(PUT, "put", timeout, key=key, fields=fields).header.revision)

    def transact(
        self,
        compare: Sequence[Any],
        success: Sequence[Any],
        failure: Sequence[Any] = (),
        *,
        timeout: float | None,
    ) -> Outcome:
        """Run a transaction made of the parts in :mod:`trunkline.etcd.request`.

        With a condition it is repeated after an outage, so it may find its own effect, whose answer was lost.
        Without one it is sent once, unless it only reads.
        """
        operations = [*success, *failure]
        request = {"compare": compare, "success": success, "failure": failure}
        key = compare[0].key if compare else _key_of(operations[0]) if operations else b""
        is_harmless = all(each.WhichOneof("request") == "request_range" for each in operations)
        repeat = bool(compare) or is_harmless
        response = self._call(TXN, "transaction on", timeout, key=key, fields=request, repeat=repeat)
        reads = tuple(
            _entries(each.response_range.kvs)
            for each in response.responses
            if each.WhichOneof("response") == "response_range"
        )
        return Outcome(response.succeeded, response.header.revision, reads)

    def grant(self, ttl: float, *, on_lost: Callable[[], None] | None = None, timeout: float | None) -> Lease:
        """Grant a lease and keep it alive.

        Args:
            ttl: Seconds, rounded up to whole ones. etcd grants at least 2.
            on_lost: Called once, from the keep-alive thread, if the lease is lost. It must not block.
            timeout: Seconds to wait for the grant.
        """
        granted_at = self._clock.monotonic()
        response = self._call(LEASE_GRANT, "grant a lease", timeout, fields={"TTL": math.ceil(ttl)})
        lease = Lease(
            response.ID,
            float(response.TTL),
            granted_at,
            keeper=self._keeper,
            revoke=lambda number, seconds: self.revoke(number, timeout=seconds),
            on_lost=on_lost,
        )
        self._keeper.add(lease)
        return lease

    def revoke(self, lease: int, *, timeout: float | None) -> bool:
        """Revoke any lease by number; its keys vanish. Return False if there was none."""
        try:
            self._call(LEASE_REVOKE, f"revoke lease {lease:x}", timeout, fields={"ID": lease})
        except StoreRequestError as error:
            if error.context["code"] != "NOT_FOUND":
                raise
            return False
        return True

    def time_to_live(self, lease: int, *, timeout: float | None) -> float | None:
        """Return the seconds a lease has left, or None if there is none."""
        response = self._call(LEASE_TIME_TO_LIVE, f"look at lease {lease:x}", timeout, fields={"ID": lease})
        return float(response.TTL) if response.TTL >= 0 else None

    def watch(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        after: int | None = None,
        wake: threading.Event | None = None,
    ) -> Watch:
        """Watch one key, or all from ``key`` up to ``range_end``; returns at once.

        With ``after`` changes later than that revision are delivered, without it a Listing comes first.
        ``wake`` is set whenever there may be something to take; who gives it clears it.
        """
        return self._watch_stream.open_watch(key, range_end, after, wake)

    def compact(self, revision: int, *, timeout: float | None) -> None:
        """Drop the history before a revision, for every client of the cluster."""
        self._call(COMPACT, "compact", timeout, fields={"revision": revision, "physical": True})

    def status(self, *, timeout: float | None) -> Status:
        """Ask whichever member answers for its status."""
        response = self._call(STATUS, "status", timeout, fields={})
        return Status(response.version, response.leader, response.dbSize, tuple(response.errors))

    def close(self) -> None:
        """End all watches, stop refreshing leases (without revoking them), join the threads, disconnect. Idempotent."""
        if self.is_foreign:
            return
        self._keeper.close()
        self._watch_stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EtcdClient {self.config.url}>"

    def _call(
        self,
        method: Any,
        operation: str,
        timeout: float | None,
        *,
        fields: dict[str, Any],
        key: bytes = b"",
        repeat: bool = True,
    ) -> Any:
        return self._connection.call(
            method,
            method.request(**fields),
            deadline=Deadline(timeout, self._clock),
            operation=operation,
            key=key,
            repeat=repeat,
        )

    def _list_for_watch(self, key: bytes, range_end: bytes, timeout: float) -> Listing:
        return self.range(key, range_end, timeout=timeout)

    def _read_for_watch(self, key: bytes, revision: int, timeout: float) -> Listing:
        return self.range(key, revision=revision, timeout=timeout)


def _entries(messages: Any) -> tuple[KeyValue, ...]:
    return tuple(KeyValue.of(message) for message in messages)


def _key_of(operation: Any) -> bytes:
    key: bytes = getattr(operation, operation.WhichOneof("request")).key
    return key
