"""Connections to one Redis server, and the script that is run over them."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import Connection as PlainConnection
from redis.connection import SSLConnection
from redis.retry import Retry

from trunkline.backoff import Backoff
from trunkline.clock import Clock, Deadline
from trunkline.errors import ClosedError, ForkedError, StoreRequestError, StoreUnavailableError
from trunkline.store.plugins.redis.failure import store_error

if TYPE_CHECKING:
    from trunkline.store.plugins.redis.codec import Word
    from trunkline.store.plugins.redis.config import RedisConfig

ATTEMPT_TIMEOUT = 2.0
"""Seconds for one attempt at a call that may be repeated."""

KEYS = tuple(f"trunkline:{name}" for name in ("meta", "entries", "index", "leases", "ttls", "held", "changes", "wake"))
WAKE = KEYS[-1]

_MAX_IDLE = 4
_SHORTEST = 0.001  # seconds: 0 would mean not to wait for the kernel either
_SCRIPT = Path(__file__).with_name("script.lua").read_text("utf-8")
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class Link:
    """One connection that was greeted; for one thread at a time, but any may disconnect it."""

    def __init__(self, wire: Any, timeout: float) -> None:
        self._wire = wire  # whose methods have no types
        try:
            wire.connect()
            server = self.command("INFO", "server", timeout=timeout)
        except BaseException:
            wire.disconnect()
            raise
        facts = dict(line.split(":", 1) for line in server.decode("utf-8", "replace").splitlines() if ":" in line)
        self.run_id = facts.get("run_id", "")
        self.mode = facts.get("redis_mode") or facts.get("server_mode") or "standalone"  # Redis; Valkey

    @property
    def is_fresh(self) -> bool:
        """Whether nothing came in since the last answer, such as its end."""
        try:
            return not self._wire.can_read(0)
        except (exceptions.RedisError, OSError):
            return False

    def command(self, *words: Word, timeout: float | None) -> Any:
        """Send one command and return its answer; each read of the answer may take ``timeout`` seconds."""
        if not self._wire.is_connected:  # it would connect again by itself, and greet nobody
            raise exceptions.ConnectionError("disconnected")
        timeout = None if timeout is None else max(timeout, _SHORTEST)
        self._wire.send_command(*words)
        return self._wire.read_response(timeout=timeout)

    def run(self, action: str, words: tuple[Word, ...], timeout: float | None) -> Any:
        """Run the script."""
        rest = (len(KEYS), *KEYS, action, self.run_id, *words)
        try:
            return self.command("EVALSHA", _SHA, *rest, timeout=timeout)
        except exceptions.NoScriptError:
            return self.command("EVAL", _SCRIPT, *rest, timeout=timeout)

    def disconnect(self) -> None:
        self._wire.disconnect()


class Connection:
    """Runs the script for any thread, over as many links as there are callers at a time.

    Args:
        config: Where and who.
        clock: Measures time-outs.
    """

    def __init__(self, config: RedisConfig, clock: Clock) -> None:
        self.config = config
        self._clock = clock
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards the idle links
        self._idle: list[Link] = []
        self._closed = threading.Event()

    @property
    def is_foreign(self) -> bool:
        """Whether this process is a forked child of the one that made it."""
        return os.getpid() != self._pid

    def check_process(self) -> None:
        """Raise ForkedError if this is a child of the process that made it."""
        if self.is_foreign:
            url = self.config.url
            raise ForkedError(f"{url} was opened before a fork; open it again in the child", url=url)

    def check_usable(self) -> None:
        """Raise if this can't be used (any more)."""
        self.check_process()
        if self._closed.is_set():
            raise ClosedError(f"the store {self.config.url} is closed", url=self.config.url)

    def call(self, action: str, *words: Word, operation: str, timeout: float | None, repeat: bool = True) -> Any:
        """Run the script and return its answer.

        What did not reach the server is sent again until the time is over; with ``repeat`` also what may have.

        Raises:
            StoreError: As :func:`trunkline.store.plugins.redis.failure.store_error` judges.
            ClosedError: Closed meanwhile.
            ForkedError: Made by a parent process.
        """
        deadline = Deadline(timeout, self._clock)
        backoff = Backoff()
        while True:
            self.check_usable()
            was_sent = False
            link: Link | None = None
            try:
                link = self._take_link(deadline)
                was_sent = True
                answer = link.run(action, words, deadline.remaining(ATTEMPT_TIMEOUT if repeat else None))
            except (exceptions.RedisError, OSError) as error:
                failure = store_error(error, operation=operation, url=self.config.url, deadline=deadline)
                is_passing = isinstance(failure, StoreUnavailableError)
                if isinstance(error, exceptions.ResponseError):
                    was_sent = False  # but refused, so nothing was done
                if link is not None and not was_sent and not is_passing:
                    self._keep(link)
                else:
                    self._drop(link)
                left = deadline.remaining()
                delay = backoff.next_delay()
                is_final = not is_passing or (was_sent and not repeat)
                if is_final or (left is not None and left <= delay):
                    self.check_usable()
                    raise failure from error
                self._clock.wait(self._closed, delay)
            except BaseException:
                self._drop(link)
                raise
            else:
                self._keep(link)
                return answer

    def open_link(self, timeout: float = ATTEMPT_TIMEOUT) -> Link:
        """Connect.

        Raises:
            redis.exceptions.RedisError: It failed.
            StoreRequestError: The server is of a kind that is not supported.
        """
        credentials = self.config.credentials
        options: dict[str, Any] = {
            "host": self.config.host,
            "port": self.config.port,
            "db": self.config.database,
            "username": credentials.username or None,
            "password": credentials.password or None,
            "socket_timeout": max(timeout, _SHORTEST),  # none but for the greeting: each answer is given its own
            "socket_connect_timeout": max(timeout, _SHORTEST),
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
        }
        wire: Any
        if self.config.is_secure:
            files = (credentials.ca, credentials.cert, credentials.key)
            ca, cert, key = (None if path is None else str(path) for path in files)
            wire = SSLConnection(ssl_ca_certs=ca, ssl_certfile=cert, ssl_keyfile=key, **options)
        else:
            make: Any = PlainConnection
            wire = make(**options)
        link = Link(wire, max(timeout, _SHORTEST))
        if link.mode != "standalone":
            link.disconnect()
            raise StoreRequestError(
                f"Redis at {self.config.url} runs as {link.mode}: Redis Cluster and Sentinel are not supported. Name "
                "one server that is not part of a cluster, and of those that Sentinel guards the primary",
                url=self.config.url,
                mode=link.mode,
            )
        return link

    def close(self) -> None:
        """Disconnect; calls under way end by themselves. Idempotent."""
        if self.is_foreign:
            return
        self._closed.set()
        self._drop(None)

    def _take_link(self, deadline: Deadline) -> Link:
        while True:
            with self._lock:
                link = self._idle.pop() if self._idle else None
            if link is None:
                return self.open_link(deadline.remaining(ATTEMPT_TIMEOUT) or 0.0)
            if link.is_fresh:
                return link
            link.disconnect()

    def _keep(self, link: Link) -> None:
        with self._lock:
            if len(self._idle) < _MAX_IDLE and not self._closed.is_set():
                self._idle.append(link)
                return
        link.disconnect()

    def _drop(self, link: Link | None) -> None:
        """Disconnect a link, and those that are idle: what broke one may have broken all."""
        with self._lock:
            links, self._idle = self._idle, []
        for each in (*links, link):
            if each is not None:
                each.disconnect()
