"""Sending frames to those who listen, and asking them."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import TYPE_CHECKING

from trunkline.clock import Deadline
from trunkline.errors import ClosedError, PeerUnreachableError
from trunkline.exchange.frame import FrameReader, pack_frame

if TYPE_CHECKING:
    from trunkline.exchange.address import Address

TIMEOUT = 10.0
"""Seconds that a call may take in all: connecting, sending, the answer."""

MAX_IDLE = 64
"""Connections that are kept for the next call."""

_CHUNK = 1 << 18


class FrameClient:
    """One connection. One thread at a time may call its methods, any thread :meth:`close`.

    Args:
        address: Where to connect to.
        deadline: When to give up.

    Raises:
        PeerUnreachableError: Nobody listens there, or nothing came in time.
    """

    def __init__(self, address: Address, deadline: Deadline) -> None:
        self.address = address
        try:
            self._socket = socket.create_connection(address, timeout=deadline.remaining())
        except OSError as error:
            raise _unreachable(address, "connecting", error, deadline) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    @property
    def is_stale(self) -> bool:
        """Whether the other side has hung up, or said something nobody asked for."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, payload: bytes, deadline: Deadline) -> None:
        """Send a frame. Returns once the system has taken it: that it arrived is not known.

        Raises:
            PeerUnreachableError: The connection broke, or the other side does not read.
        """
        try:
            self._socket.settimeout(seconds_left(deadline))
            self._socket.sendall(pack_frame(payload))
        except OSError as error:
            raise _unreachable(self.address, "sending", error, deadline) from error

    def receive(self, max_bytes: int, deadline: Deadline) -> bytes:
        """Return the payload of the next frame.

        Raises:
            PeerUnreachableError: The other side hung up, or nothing came in time.
            MetadataDecodeError: The frame is too long.
        """
        reader = FrameReader(max_bytes)
        try:
            while (payload := reader.take()) is None:
                self._socket.settimeout(seconds_left(deadline))
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError("it hung up without an answer")
                reader.feed(data)
        except OSError as error:
            raise _unreachable(self.address, "waiting for the answer", error, deadline) from error
        return payload

    def close(self) -> None:
        """Hang up; wakes whoever waits. Idempotent."""
        with contextlib.suppress(OSError):  # the other side was first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class FrameClients:
    """Connections by address, kept open: NIXL's listeners don't close theirs when a peer hangs up.

    Any thread may call any method.

    Args:
        timeout: Seconds for each call.
    """

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._idle: dict[Address, FrameClient] = {}  # the last one used comes last
        self._busy: set[FrameClient] = set()
        self._is_closed = False

    def send(self, address: Address, payload: bytes) -> None:
        """Send a frame; see :meth:`FrameClient.send`.

        Raises:
            PeerUnreachableError: As there.
            ClosedError: These were closed.
        """
        self._call(address, payload, None)

    def ask(self, address: Address, payload: bytes, max_bytes: int) -> bytes:
        """Send a frame and return the payload of the answer.

        Raises:
            PeerUnreachableError: Nobody answers.
            MetadataDecodeError: The answer is too long.
            ClosedError: These were closed.
        """
        return self._call(address, payload, max_bytes)

    def close(self) -> None:
        """Hang up everywhere; who waits for an answer gets an error. Idempotent."""
        with self._lock:
            self._is_closed = True
            clients = [*self._idle.values(), *self._busy]
            self._idle.clear()
        for client in clients:
            client.close()

    def _call(self, address: Address, payload: bytes, max_bytes: int | None) -> bytes:
        deadline = Deadline(self._timeout)
        client = self._take_idle(address)
        if client is not None:
            try:
                return self._use(client, payload, max_bytes, deadline)
            except PeerUnreachableError:  # it may have hung up just now; what is sent may be sent twice
                if deadline.has_passed:
                    raise
        return self._use(FrameClient(address, deadline), payload, max_bytes, deadline)

    def _take_idle(self, address: Address) -> FrameClient | None:
        with self._lock:
            client = self._idle.pop(address, None)
        if client is None or not client.is_stale:
            return client
        client.close()
        return None

    def _use(self, client: FrameClient, payload: bytes, max_bytes: int | None, deadline: Deadline) -> bytes:
        with self._lock:
            is_closed = self._is_closed
            self._busy.add(client)
        spare: FrameClient | None = client
        try:
            if is_closed:
                raise ClosedError(f"the agent was closed before {client.address} was asked")
            client.send(payload, deadline)
            answer = b"" if max_bytes is None else client.receive(max_bytes, deadline)
            spare = self._keep(client)
            return answer
        finally:
            with self._lock:
                self._busy.discard(client)
            if spare is not None:
                spare.close()

    def _keep(self, client: FrameClient) -> FrameClient | None:
        """Keep a connection for the next call; return one that is to be closed instead."""
        with self._lock:
            if self._is_closed:
                return client
            spare = self._idle.pop(client.address, None)
            self._idle[client.address] = client
            if spare is None and len(self._idle) > MAX_IDLE:
                spare = self._idle.pop(next(iter(self._idle)))
            return spare


def seconds_left(deadline: Deadline) -> float | None:
    """Return the seconds left, for a socket, to which 0 would mean not to wait at all.

    Raises:
        TimeoutError: None are left.
    """
    left = deadline.remaining()
    if left is not None and left <= 0:
        raise TimeoutError("timed out")
    return left


def _unreachable(address: Address, doing: str, error: OSError, deadline: Deadline) -> PeerUnreachableError:
    return PeerUnreachableError(
        f"{address} can't be reached ({doing}, after {deadline.elapsed:.1f} s): {error.strerror or error}. "
        "Is it listening there, and on an address that can be reached from here?",
        host=address.host,
        port=address.port,
    )
