"""NIXL's metadata in PyTorch's TCPStore: a client of it, and NIXL's keys there.

They are ``/nixl/agents/<label>/<agent>/NULL_AGENT``. The client speaks TCPStore's protocol itself, as NIXL's does:
torch is not needed, values are bounded before they are read, and a wait ends with its agent. Integers are little
endian; the protocol has the host's order.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING

from trunkline.backoff import Backoff
from trunkline.clock import Deadline
from trunkline.errors import (
    AgentNotFoundError,
    ClosedError,
    ConfigurationError,
    MetadataDecodeError,
    StoreUnavailableError,
    TrunklineError,
)
from trunkline.exchange.address import Address
from trunkline.exchange.client import seconds_left
from trunkline.metadata.codec import MAX_BYTES
from trunkline.metadata.key import DEFAULT_NAMESPACE, MetadataKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ENDPOINT = "NIXL_TCPSTORE_ENDPOINT"
"""The environment variable that says where the store is, as ``host:port``."""

MAX_VALUE = 8 << 20
"""The longest value that TCPStore takes, unless it was made with ``use_libuv=False``."""

_VALIDATE, _SET, _GET, _CHECK, _WAIT, _DELETE, _PING = (bytes([query]) for query in (0, 1, 3, 5, 6, 8, 13))
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_MAGIC = _U32.pack(0x3C85F7CE)
_ONE_KEY = _U64.pack(1)
_CHUNK = 1 << 18


class TcpStore:
    """What one agent has to do with the store: each call has a connection of its own. Any thread may call any method.

    Args:
        address: Where the store is.
        waiting: Seconds to wait for an agent that has not published yet, or for the store itself.
        timeout: Seconds for all else that a call does.

    Attributes:
        address: Where the store is.
    """

    def __init__(self, address: Address, *, waiting: float = 30.0, timeout: float = 5.0) -> None:
        self.address = address
        self._waiting = waiting
        self._timeout = timeout
        self._publishing = threading.Lock()
        self._published: set[bytes] = set()
        self._lock = threading.Lock()
        self._open: set[_Connection] = set()
        self._closed = threading.Event()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> TcpStore | None:
        """Return the store that NIXL's variables name (``NIXL_TCPSTORE_ENDPOINT``, ``…_TIMEOUT_MS``,
        ``…_OP_TIMEOUT_MS``), None if they name none. Connects to nothing.

        Raises:
            ConfigurationError: One holds something that can't be used; or ``NIXL_ETCD_ENDPOINTS`` names a store, too.
        """
        variables = os.environ if environment is None else environment
        endpoint = variables.get(ENDPOINT)
        if not endpoint:
            return None
        if variables.get("NIXL_ETCD_ENDPOINTS"):
            raise ConfigurationError(f"NIXL_ETCD_ENDPOINTS and {ENDPOINT} exclude each other: unset one")
        host, _, port = endpoint.rpartition(":")
        if not host or not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise ConfigurationError(f"{ENDPOINT}={endpoint!r}: it is host:port, with a port of 1 to 65535")
        return cls(
            Address(host.removeprefix("[").removesuffix("]"), int(port)),
            waiting=_seconds(variables, "NIXL_TCPSTORE_TIMEOUT_MS", 30_000),
            timeout=_seconds(variables, "NIXL_TCPSTORE_OP_TIMEOUT_MS", 5_000),
        )

    def publish(self, name: str, label: str, metadata: bytes) -> None:
        """Put metadata there; returns once the store has them.

        Raises:
            ConfigurationError: No key can have the label.
            StoreUnavailableError: The store did not answer.
            ClosedError: The agent was closed.
        """
        key = _key(name, label)
        request = _SET + key + _text(metadata) + _CHECK + _ONE_KEY + key  # SET is not answered
        deadline = Deadline(self._timeout)
        doing = f"publishing {len(metadata)} bytes as {name!r} (label {label!r})"
        if len(metadata) > MAX_VALUE:
            doing += f" (it takes {MAX_VALUE}, unless it runs without libuv)"
        with self._publishing, self._connected(deadline, doing) as connection:
            self._published.add(key)
            connection.ask(request, 1, deadline)

    def fetch(self, name: str, label: str) -> bytes:
        """Return an agent's metadata, waiting for them if they are not there yet, or the store is not.

        The store wakes who waits; it is asked again only where it was away.

        Raises:
            AgentNotFoundError: Nobody of that name published in time.
            MetadataDecodeError: The value is too long.
            StoreUnavailableError: The store was away when the time was over.
            ConfigurationError, ClosedError: As :meth:`publish`.
        """
        key = _key(name, label)
        waiting, backoff = Deadline(self._waiting), Backoff()
        while True:
            try:
                metadata = self._await(key, f"fetching {name!r} (label {label!r})", waiting)
                break
            except StoreUnavailableError:
                self._closed.wait(waiting.remaining(backoff.next_delay()))
                if waiting.has_passed:
                    raise
        if not metadata:
            raise AgentNotFoundError(
                f"agent {name!r} (label {label!r}) was not found within {waiting.elapsed:.1f} s in the TCPStore at "
                f"{self.address}: has it published there, and under this name?",
                agent=name,
                label=label,
            )
        return metadata

    def withdraw(self) -> None:
        """Delete all that was published here; returns once it is gone. Who has loaded it is not told.

        Raises:
            StoreUnavailableError, ClosedError: As :meth:`publish`; the next call makes up for it.
        """
        deadline = Deadline(self._timeout)
        with self._publishing:
            if not self._published:
                return
            with self._connected(deadline, "withdrawing what was published") as connection:
                for key in sorted(self._published):
                    connection.ask(_DELETE + key, 8, deadline)
                    self._published.discard(key)

    def close(self) -> None:
        """Hang up; who waits gets an error. What was published stays. Idempotent."""
        with self._lock:
            self._closed.set()
            connections = list(self._open)
        for connection in connections:
            connection.hang_up()

    def _await(self, key: bytes, doing: str, waiting: Deadline) -> bytes:
        """Return a value once it is there; nothing if it is not in time, or was withdrawn in between."""
        with self._connected(Deadline(self._timeout), doing) as connection:
            try:
                connection.ask(_WAIT + _ONE_KEY + key, 1, waiting)
            except TimeoutError:
                return b""
            deadline = Deadline(self._timeout)
            [size] = _U64.unpack(connection.ask(_GET + key, _U64.size, deadline))
            if size > MAX_BYTES:
                raise MetadataDecodeError(f"{doing}: {size} bytes, more than {MAX_BYTES}", field="size")
            return connection.ask(b"", size, deadline)

    @contextlib.contextmanager
    def _connected(self, deadline: Deadline, doing: str) -> Iterator[_Connection]:
        """Connect, and hang up in the end; errors of the network become ours."""
        connection: _Connection | None = None
        try:
            connection = _Connection(self.address, deadline)
            with self._lock:
                self._open.add(connection)
                if self._closed.is_set():
                    raise ConnectionAbortedError
            connection.greet(deadline)
            yield connection
        except TrunklineError:  # some are OSErrors, too
            raise
        except OSError as error:
            if self._closed.is_set():
                raise ClosedError(f"{doing}: the agent was closed") from error
            raise StoreUnavailableError(
                f"{doing}: the TCPStore at {self.address} failed after {deadline.elapsed:.1f} s: "
                f"{error.strerror or error}. Does it run there ({ENDPOINT})?",
                host=self.address.host,
                port=self.address.port,
            ) from error
        finally:
            if connection is not None:
                with self._lock:
                    self._open.discard(connection)
                connection.close()


class _Connection:
    """One connection. Its methods raise OSErrors; a TimeoutError at the deadline."""

    def __init__(self, address: Address, deadline: Deadline) -> None:
        self._socket = socket.create_connection(address, timeout=seconds_left(deadline))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def greet(self, deadline: Deadline) -> None:
        """Say which protocol it is, and find out whether the other side speaks it."""
        nonce = os.urandom(_U32.size)
        if self.ask(_VALIDATE + _MAGIC + _PING + nonce, len(nonce), deadline) != nonce:
            raise ConnectionError("what listens there is no TCPStore")

    def ask(self, request: bytes, size: int, deadline: Deadline) -> bytes:
        """Send a request, and return an answer of that size."""
        self._socket.settimeout(seconds_left(deadline))
        self._socket.sendall(request)
        answer = bytearray()
        while len(answer) < size:
            self._socket.settimeout(seconds_left(deadline))
            data = self._socket.recv(min(size - len(answer), _CHUNK))
            if not data:
                raise ConnectionResetError("it hung up without an answer")
            answer += data
        return bytes(answer)

    def hang_up(self) -> None:
        """Wake who waits for an answer."""
        with contextlib.suppress(OSError):  # the other side was first
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


def _key(name: str, label: str) -> bytes:
    MetadataKey(DEFAULT_NAMESPACE, name, label)  # refuses what can't be part of a key
    return _text(f"{DEFAULT_NAMESPACE}/{label}/{name}/NULL_AGENT".encode())


def _text(data: bytes) -> bytes:
    return _U64.pack(len(data)) + data


def _seconds(variables: Mapping[str, str], name: str, default: int) -> float:
    text = variables.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ConfigurationError(f"{name}={text!r} is not a number of milliseconds above 0", variable=name)
    return int(text) / 1000
