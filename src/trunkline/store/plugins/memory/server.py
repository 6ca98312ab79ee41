"""What the connections to one memory store share: the database, its lock, its clock and one thread.

The thread (``trunkline-memory-NAME``) starts with the first lease, sleeps until a lease runs out, and tells the
owners of lost leases. The last connection to close ends it and drops the data.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from trunkline.errors import ConfigurationError
from trunkline.store.plugins.memory.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.clock import Clock


class Server:
    """A database shared by connections.

    ``lock`` guards the database and everything in this object. It is never held while waiting or calling back.

    Args:
        name: The store's name, for the thread.
        clock: Measures leases.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.lock = threading.RLock()
        self.connections = 0
        self._database = Database()
        self._watchers: list[threading.Event] = []  # one may serve several watches
        self._owners: dict[int, Callable[[], None]] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @property
    def database(self) -> Database:
        """The state as of now: leases that have run out are gone. Call it with the lock held."""
        if self._database.expire(self.clock.monotonic()):
            self.changed()
        return self._database

    def changed(self) -> None:
        """Wake whoever waits for changes. Call it with the lock held, after each write."""
        for watcher in self._watchers:
            watcher.set()
        self._wake.set()

    def add_watcher(self, watcher: threading.Event) -> None:
        """Set this event at every change."""
        with self.lock:
            self._watchers.append(watcher)

    def remove_watcher(self, watcher: threading.Event) -> None:
        with self.lock:
            self._watchers.remove(watcher)

    def add_owner(self, lease: int, on_lost: Callable[[], None] | None) -> None:
        """Call ``on_lost`` from the thread, once, when the lease is gone. Call it with the lock held."""
        if on_lost is not None:
            self._owners[lease] = on_lost
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"trunkline-memory-{self.name}", daemon=True)
            self._thread.start()

    def remove_owner(self, lease: int) -> None:
        """Don't tell about this lease. Call it with the lock held."""
        self._owners.pop(lease, None)

    def close(self) -> None:
        """End the thread."""
        self._is_closed = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._is_closed:
            self._wake.clear()
            with self.lock:
                now = self.clock.monotonic()
                database = self.database
                lost = [lease for lease in self._owners if database.time_to_live(lease, now) is None]
                callbacks = [self._owners.pop(lease) for lease in lost]
                expiry = database.next_expiry
            for callback in callbacks:
                callback()
            self.clock.wait(self._wake, None if expiry is None else max(0.0, expiry - now))


_SERVERS: dict[str, Server] = {}
_SERVERS_LOCK = threading.Lock()


def connect(name: str, clock: Clock) -> Server:
    """Return the server of this name, made if there is none.

    Raises:
        ConfigurationError: There is one that goes by another clock.
    """
    with _SERVERS_LOCK:
        server = _SERVERS.setdefault(name, Server(name, clock))
        if server.clock is not clock:
            raise ConfigurationError(f"memory://{name} is open already, with another clock")
        server.connections += 1
        return server


def disconnect(server: Server) -> None:
    """Give back what :func:`connect` returned; the last one closes the server."""
    with _SERVERS_LOCK:
        server.connections -= 1
        if server.connections:
            return
        del _SERVERS[server.name]
    server.close()
