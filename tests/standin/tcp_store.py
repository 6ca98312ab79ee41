"""A server that speaks as much of the protocol of PyTorch's TCPStore as NIXL's agents do."""

from __future__ import annotations

import socketserver
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VALIDATE, SET, GET, CHECK, WAIT, DELETE, PING = 0, 1, 3, 5, 6, 8, 13
MAGIC = 0x3C85F7CE
MAX_VALUE = 8 << 20


class TcpStoreServer(socketserver.ThreadingTCPServer):
    """Serves until it is closed.

    Attributes:
        values: What lies there.
        connected: How many are connected.
        waiting: How many wait for a key.
        faults: What is answered to a query instead; the connection ends after it.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.values: dict[str, bytes] = {}
        self.connected = 0
        self.waiting = 0
        self.faults: dict[int, Callable[[], bytes]] = {}
        self.changed = threading.Condition()
        self.is_closed = False

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def put(self, key: str, value: bytes) -> None:
        with self.changed:
            self.values[key] = value
            self.changed.notify_all()

    def wait(self, key: str) -> None:
        with self.changed:
            self.waiting += 1
            self.changed.wait_for(lambda: key in self.values or self.is_closed)
            self.waiting -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: who hung up in the middle of a query is no error."""


class _Session(socketserver.StreamRequestHandler):
    server: TcpStoreServer

    def handle(self) -> None:
        with self.server.changed:
            self.server.connected += 1
        try:
            assert (self._byte(), self._number("<I")) == (VALIDATE, MAGIC)
            while (query := self.rfile.read(1)) and not self.server.is_closed:
                if query[0] in self.server.faults:
                    self.wfile.write(self.server.faults[query[0]]())
                    return
                self.wfile.write(self._answer(query[0]))
        finally:
            with self.server.changed:
                self.server.connected -= 1

    def _answer(self, query: int) -> bytes:
        values = self.server.values
        if query == PING:
            return self._exactly(4)
        if query in (CHECK, WAIT):
            assert self._number("<Q") == 1
        key = self._text().decode()
        if query == SET:
            value = self._text()
            assert len(value) <= MAX_VALUE
            self.server.put(key, value)
            return b""
        if query == GET:
            value = values.get(key, b"")
            return struct.pack("<Q", len(value)) + value
        if query == CHECK:
            return bytes([key not in values])
        if query == DELETE:
            return struct.pack("<q", int(values.pop(key, None) is not None))
        assert query == WAIT
        self.server.wait(key)
        return bytes(1)

    def _byte(self) -> int:
        return self._exactly(1)[0]

    def _number(self, form: str) -> int:
        [number] = struct.unpack(form, self._exactly(struct.calcsize(form)))
        return int(number)

    def _text(self) -> bytes:
        return self._exactly(self._number("<Q"))

    def _exactly(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionResetError
        return data


@contextmanager
def tcp_store_server() -> Iterator[TcpStoreServer]:
    """Serve on loopback, at a free port."""
    with TcpStoreServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            with server.changed:
                server.is_closed = True
                server.changed.notify_all()
            server.shutdown()
            thread.join()
