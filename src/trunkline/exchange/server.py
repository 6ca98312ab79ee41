"""Answering frames: one thread for all connections, none of which can hold up another, or be held for ever."""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import threading
from typing import TYPE_CHECKING, Protocol

from trunkline.clock import SYSTEM_CLOCK, Clock
from trunkline.errors import ConfigurationError, TrunklineError
from trunkline.exchange.address import Address
from trunkline.exchange.frame import FrameReader, pack_frame

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
"""A further one takes the place of the one that has been idle longest."""

MAX_HELD = 256 << 20
"""Bytes that all connections together may have under way; beyond it the one with the most is closed."""

FRAME_TIMEOUT = 30.0
"""Seconds within which a frame that has begun must have arrived, and an answer must have been read."""

JOIN_TIMEOUT = 5.0
ACCEPT_PAUSE = 1.0
"""Seconds without new connections after the process ran out of descriptors."""

_CHUNK = 1 << 18
_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class FrameSession(Protocol):
    """What the server needs of whoever answers one connection. All is called on the server's thread.

    Attributes:
        is_kept: Whether the connection is never closed for being idle.
    """

    is_kept: bool

    def receive(self, payload: bytes) -> bytes | None:
        """Return the answer to a frame, if there is one. A TrunklineError ends the connection, with a log line."""
        ...

    def end(self) -> None:
        """The connection is closed."""
        ...


class _Connection:
    """An open connection.

    Attributes:
        socket: Its socket.
        session: Who answers.
        reader: What has arrived.
        output: What of an answer is still to be sent. Meanwhile nothing is read.
        since: When the frame or answer that is under way began, or, if none is, the connection became idle.
    """

    def __init__(self, connected: socket.socket, peer: str, session: FrameSession, max_bytes: int, now: float) -> None:
        self.socket = connected
        self.peer = peer
        self.session = session
        self.reader = FrameReader(max_bytes)
        self.output = memoryview(b"")
        self.since = now

    @property
    def is_idle(self) -> bool:
        return self.held == 0

    @property
    def held(self) -> int:
        return self.reader.held + len(self.output)


class FrameServer:
    """Listens, until it is closed. Any thread may call any method.

    Args:
        address: Where; port 0 takes a free one. ``::`` listens for IPv4 as well.
        open_session: Called with each new connection's address, as text, on the server's thread.
        max_bytes: The longest payload that is read.
        idle_timeout: Seconds after which an idle connection is closed; None to keep it until its place is needed.
        max_connections: How many may be open.
        name: Of the thread.
        clock: For tests.

    Attributes:
        address: Where it listens, with the port it got.

    Raises:
        ConfigurationError: It can't listen there; says why.
    """

    def __init__(
        self,
        address: Address,
        open_session: Callable[[str], FrameSession],
        *,
        max_bytes: int,
        idle_timeout: float | None = None,
        max_connections: int = MAX_CONNECTIONS,
        name: str = "trunkline-listener",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._open_session = open_session
        self._max_bytes = max_bytes
        self._idle_timeout = idle_timeout
        self._max_connections = max_connections
        self._clock = clock
        self._listener = _listen(address)
        self.address = Address(address.host, self._listener.getsockname()[1])
        self._paused_until: float | None = None
        self._connections: set[_Connection] = set()
        self._is_closed = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have the thread look at the time again."""
        with contextlib.suppress(OSError):  # it is awake, or has ended
            self._wake_writer.send(b"x")

    def close(self) -> None:
        """Hang up and listen no more; returns once the thread has ended. Idempotent."""
        self._is_closed = True
        self.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(JOIN_TIMEOUT)

    def forsake(self) -> None:
        """In a forked child, where the thread is not: close the descriptors, and leave the parent's connections."""
        self._is_closed = True
        for each in (self._listener, self._wake_reader, self._wake_writer, *(c.socket for c in self._connections)):
            each.close()
        self._selector.close()

    def _run(self) -> None:
        try:
            while not self._is_closed:
                for key, _ in self._selector.select(self._patience()):
                    self._handle(key)
                self._expire()
        finally:
            for connection in list(self._connections):
                self._close(connection)
            self._selector.close()
            for each in (self._listener, self._wake_reader, self._wake_writer):
                each.close()

    def _handle(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif key.fileobj is self._wake_reader:
            self._wake_reader.recv(_CHUNK)
        elif key.data in self._connections:  # it may have been closed for another's sake
            self._serve(key.data)

    def _accept(self) -> None:
        try:
            connected, peer = self._listener.accept()
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS and not self._evict():
                log.warning("no connection can be accepted at %s for a moment: %s", self.address, error)
                self._selector.unregister(self._listener)
                self._paused_until = self._clock.monotonic() + ACCEPT_PAUSE
            return
        if len(self._connections) >= self._max_connections and not self._evict():
            log.warning("%s: a connection from %s is refused, %d are busy", self.address, peer, self._max_connections)
            connected.close()
            return
        try:
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(connected)
        except OSError as error:
            log.info("%s: the connection from %s broke: %s", self.address, peer, error)
            connected.close()
            return
        text = str(Address(*peer[:2]))
        connection = _Connection(connected, text, self._open_session(text), self._max_bytes, self._clock.monotonic())
        self._connections.add(connection)
        self._selector.register(connected, selectors.EVENT_READ, connection)

    def _serve(self, connection: _Connection) -> None:
        try:
            if connection.output:
                connection.output = connection.output[connection.socket.send(connection.output) :]
                if connection.output:
                    return
                connection.since = self._clock.monotonic()
                self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            else:
                data = connection.socket.recv(_CHUNK)
                if not data:
                    self._close(connection)
                    return
                if connection.is_idle:
                    connection.since = self._clock.monotonic()
                connection.reader.feed(data)
            self._answer(connection)
            self._shed()
        except BlockingIOError:
            pass
        except OSError as error:
            log.info("%s: the connection from %s broke: %s", self.address, connection.peer, error)
            self._close(connection)
        except TrunklineError as error:
            log.warning("%s: the connection from %s is closed: %s", self.address, connection.peer, error)
            self._close(connection)
        except Exception:  # whatever one frame does, the others are answered
            log.exception("%s: the connection from %s is closed", self.address, connection.peer)
            self._close(connection)

    def _answer(self, connection: _Connection) -> None:
        """Handle the frames that have arrived, up to one that is answered."""
        while not connection.output and (payload := connection.reader.take()) is not None:
            connection.since = self._clock.monotonic()
            answer = connection.session.receive(payload)
            if answer is not None:
                connection.output = memoryview(pack_frame(answer))
                self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)

    def _shed(self) -> None:
        while sum(connection.held for connection in self._connections) > MAX_HELD:
            largest = max(self._connections, key=lambda connection: connection.held)
            log.warning("%s: too much is under way: the connection from %s is closed", self.address, largest.peer)
            self._close(largest)

    def _evict(self) -> bool:
        """Close the connection that has been idle longest; return whether there was one."""
        idle = [each for each in self._connections if each.is_idle and not each.session.is_kept]
        if not idle:
            return False
        self._close(min(idle, key=lambda connection: connection.since))
        return True

    def _due(self, connection: _Connection) -> float | None:
        """When a connection is to be closed, if nothing happens on it."""
        if not connection.is_idle:
            return connection.since + FRAME_TIMEOUT
        if self._idle_timeout is None or connection.session.is_kept:
            return None
        return connection.since + self._idle_timeout

    def _patience(self) -> float | None:
        """Seconds until something is due; None if nothing is."""
        times = [self._due(connection) for connection in self._connections]
        due = min((time for time in (*times, self._paused_until) if time is not None), default=None)
        return None if due is None else max(0.0, due - self._clock.monotonic())

    def _expire(self) -> None:
        now = self._clock.monotonic()
        for connection in list(self._connections):
            due = self._due(connection)
            if due is not None and due <= now:
                log.info("%s: the connection from %s is closed: it is too slow", self.address, connection.peer)
                self._close(connection)
        if self._paused_until is not None and self._paused_until <= now:
            self._paused_until = None
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _close(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()
        connection.session.end()


def _listen(address: Address) -> socket.socket:
    try:
        infos = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, found = infos[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(found)
            listener.listen(128)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"{address} can't be listened on: {reason}. Choose another port (0 for a free one), or an address of "
            "this machine",
            host=address.host,
            port=address.port,
        ) from error
    return listener


def _keep_alive(connected: socket.socket) -> None:
    """Have the system notice a peer whose host is gone, within half a minute or so."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
