"""Proxies between a client and a server on this machine, which break what goes through them."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class TcpProxy:
    """Forwards TCP connections to a port of this machine, until it is cut or muted.

    Args:
        port: The port to forward to.

    Attributes:
        port: Its own port.
        connections: How many were made.
    """

    def __init__(self, port: int) -> None:
        self.connections = 0
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()  # guards the three below
        self._sockets: set[socket.socket] = set()
        self._is_cut = False
        self._is_muted = False
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def endpoint(self) -> str:
        """The URL of an HTTP server behind it."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break all connections and refuse new ones."""
        with self._lock:
            self._is_cut = True
            for each in self._sockets:
                _shut(each)

    def mute(self) -> None:
        """Forward what clients send, and lose what is answered."""
        with self._lock:
            self._is_muted = True

    def mend(self) -> None:
        """Let connections and answers through again; after :meth:`mute` cut first, for answers were torn."""
        with self._lock:
            self._is_cut = self._is_muted = False

    def close(self) -> None:
        """Break all connections, stop listening and join the threads."""
        self.cut()
        _shut(self._listener)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def forward_request(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what a client sends, until it ends."""
        while data := client.recv(65536):
            server.sendall(data)

    def forward_answer(self, server: socket.socket, client: socket.socket) -> None:
        """Pass on what the server answers, until it ends."""
        while data := server.recv(65536):
            with self._lock:
                is_lost = self._is_muted
            if not is_lost:
                client.sendall(data)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="tcp-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            with self._lock:
                if self._is_cut:
                    client.close()
                    server.close()
                    continue
                self._sockets |= {client, server}
            self.connections += 1
            self._start(self._forward, self.forward_request, client, server)
            self._start(self._forward, self.forward_answer, server, client)

    def _forward(
        self, forward: Callable[[socket.socket, socket.socket], None], source: socket.socket, sink: socket.socket
    ) -> None:
        with contextlib.suppress(OSError):
            forward(source, sink)
        for each in (source, sink):
            _shut(each)
        with self._lock:
            self._sockets.discard(source)
        source.close()


class HttpProxy(TcpProxy):
    """A proxy that answers instead of the server, holds its answers back, and cuts them off.

    Args:
        port: The port to forward to.

    Attributes:
        answer: Called with each chunk that clients send; a request's head begins one. What it returns is sent back
            instead of the chunk being passed on, and that is the connection's end; None passes it on.
        cut_after: How many bytes of the answers on a connection are passed on before it is cut; None for all.
    """

    def __init__(self, port: int) -> None:
        self.answer: Callable[[bytes], bytes | None] = lambda _: None
        self.cut_after: int | None = None
        self._flows = threading.Event()
        self._flows.set()
        super().__init__(port)

    @property
    def is_stalled(self) -> bool:
        """Whether answers are held back; can be set."""
        return not self._flows.is_set()

    @is_stalled.setter
    def is_stalled(self, value: bool) -> None:
        (self._flows.clear if value else self._flows.set)()

    def cut(self) -> None:
        """Break all connections and refuse new ones; what was held back is lost."""
        super().cut()
        self._flows.set()

    def forward_request(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what a client sends, until it ends or is answered here."""
        while data := client.recv(65536):
            answer = self.answer(data)
            if answer is not None:
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):  # closed with something unread it would be reset, and the answer lost
                    pass
                return
            server.sendall(data)

    def forward_answer(self, server: socket.socket, client: socket.socket) -> None:
        """Pass on what the server answers, until it ends or is cut off."""
        passed = 0
        while data := server.recv(65536):
            self._flows.wait()
            if self.cut_after is not None and passed + len(data) > self.cut_after:
                client.sendall(data[: self.cut_after - passed])
                return
            client.sendall(data)
            passed += len(data)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
