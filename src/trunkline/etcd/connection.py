"""Calls to whichever member of the cluster answers."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from trunkline.backoff import Backoff
from trunkline.clock import SYSTEM_CLOCK, Clock, Deadline
from trunkline.errors import ClosedError, ForkedError, StoreUnavailableError
from trunkline.etcd.channel import Channel, Metadata
from trunkline.etcd.failure import Failure, Kind, store_error
from trunkline.etcd.messages import AUTHENTICATE, STATUS, Method

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trunkline.etcd.config import EtcdConfig

_log = logging.getLogger(__name__)

ATTEMPT_TIMEOUT = 2.0
_LOSES_WRITES = {"3.5.0", "3.5.1", "3.5.2"}  # etcd's own announcement, fixed in 3.5.3
_TOKEN_RENEWALS = 4  # of one call: while somebody sets roles up, each step makes the tokens before it old
_REQUIRE_LEADER = ("hasleader", "true")  # a member cut off from its leader then refuses instead of going stale


class Stream(NamedTuple):
    """A stream under way: its channel, the token it was opened with, and gRPC's call (an iterator of responses)."""

    channel: Channel
    token: str | None
    call: Any


class Connection:
    """One channel per endpoint; sticks to one and goes on to the next when it fails.

    Every call is bounded by its deadline. Within it each attempt has ``ATTEMPT_TIMEOUT`` seconds (doubled after
    each round in which answers were too slow), and there is a pause once every endpoint was tried. Any thread
    may use it; it holds no thread of its own.

    Args:
        config: Where and who.
        clock: Measures deadlines and pauses.
        open_channel: Makes the channel to an endpoint.
    """

    def __init__(
        self,
        config: EtcdConfig,
        *,
        clock: Clock = SYSTEM_CLOCK,
        open_channel: Callable[[str, EtcdConfig], Channel] = Channel,
    ) -> None:
        self.config = config
        self._clock = clock
        self._closed = threading.Event()
        self._pid = os.getpid()
        self._channels = [open_channel(endpoint, config) for endpoint in config.endpoints]
        self._current = 0
        self._has_answered = False
        self._token: str | None = None  # None until authenticated; empty if the cluster has authentication off
        self._token_lock = threading.Lock()  # lets one thread authenticate for all; nobody waits past its deadline

    @property
    def is_foreign(self) -> bool:
        """Whether this process is a forked child of the one that made the connection."""
        return os.getpid() != self._pid

    def check_process(self) -> None:
        """Raise ForkedError in a forked child."""
        if self.is_foreign:
            raise ForkedError(
                f"the client of etcd at {self.config.url} belongs to process {self._pid}, which forked; "
                "open another one in the child",
                url=self.config.url,
                pid=self._pid,
            )

    def check_usable(self) -> None:
        """Raise ForkedError in a forked child, ClosedError once closed."""
        self.check_process()
        if self._closed.is_set():
            raise ClosedError(f"the client of etcd at {self.config.url} is closed", url=self.config.url)

    def call(
        self,
        method: Method,
        request: Any,
        *,
        deadline: Deadline,
        operation: str,
        key: bytes = b"",
        repeat: bool = True,
    ) -> Any:
        """Send a request until it is answered.

        Args:
            method: What to call.
            request: Its message.
            deadline: When to give up.
            operation: Name of the operation, for messages.
            key: The key it is about, for messages.
            repeat: Whether sending it twice does no harm. If not it is sent once, to an endpoint that answers.

        Raises:
            StoreUnavailableError: No endpoint answered in time; without ``repeat`` it may have been carried out.
            StoreAuthError: Wrong or missing credentials or rights; or no endpoint and we accept each other's
                certificates.
            StoreLimitError: The request is too large.
            StoreRequestError: etcd refused it otherwise; ``context["code"]`` is the gRPC status.
            ClosedError: Closed, before or meanwhile.
            ForkedError: Made by a parent process.
        """
        backoff = Backoff()
        failures = slow = distrusted = renewals = 0
        while True:
            self.check_usable()
            if not repeat and not self._has_answered:
                self.call(STATUS, STATUS.request(), deadline=deadline, operation=operation, key=key)
            channel = self._channels[self._current]
            attempt = ATTEMPT_TIMEOUT * 2 ** (slow // len(self._channels))
            attempt_deadline = Deadline(deadline.remaining(attempt if repeat else None), self._clock)
            token = None
            try:
                token = self._authenticated_token(channel, attempt_deadline)
                response = channel.call(method, request, attempt_deadline.remaining(), _metadata(token))
            except grpc.RpcError as error:
                self.check_usable()  # our own close cancels calls
                failure, cause = Failure.of(error), error
            except ValueError:  # what gRPC raises for a channel that was closed meanwhile
                self.check_usable()
                raise
            else:
                self._has_answered = True
                return response
            if failure.kind is Kind.TOKEN and token is not None and renewals < _TOKEN_RENEWALS:
                if renewals:
                    self.pause(deadline.remaining(backoff.next_delay()))
                renewals += 1
                self.forget_token(token)
                continue
            if failure.is_passing:
                self.leave(channel)
                failures += 1
                slow += failure.kind is Kind.TIMED_OUT
                distrusted += failure.is_distrust
                is_hopeless = distrusted == failures >= len(self._channels)  # the next round would end no better
                if repeat and not is_hopeless:
                    if failures >= len(self._channels):
                        self.pause(deadline.remaining(backoff.next_delay()))
                    if not deadline.has_passed:
                        continue
            final = store_error(
                failure, operation=operation, key=key, url=self.config.url, endpoint=channel.endpoint, deadline=deadline
            )
            if failure.is_passing and not failure.is_distrust and not repeat:
                message = f"{final.message}; whether it was carried out is not known"
                final = StoreUnavailableError(message, **final.context)
            raise final from cause

    def open_stream(self, method: Method, requests: Iterator[Any], *, operation: str) -> Stream:
        """Open a stream in both directions on an endpoint that just answered.

        Raises:
            StoreError, ClosedError: As :meth:`call`, after the time for one attempt per endpoint.
        """
        deadline = Deadline(ATTEMPT_TIMEOUT * len(self._channels), self._clock)
        status = self.call(STATUS, STATUS.request(), deadline=deadline, operation=operation)
        if len(self._channels) > 1 and status.version in _LOSES_WRITES:
            _log.warning(
                f"etcd at {self.config.url} is {status.version}, which can lose committed writes "
                "when a member crashes; upgrade the cluster to 3.5.3 or later"
            )
        channel, token = self._channels[self._current], self._token
        try:
            return Stream(channel, token, channel.stream(method, requests, _metadata(token)))
        except ValueError:  # as in call
            self.check_usable()
            raise

    def leave(self, channel: Channel) -> None:
        """Go on to the next endpoint, unless another thread already did."""
        self._has_answered = False
        current = self._current
        if self._channels[current] is channel:
            self._current = (current + 1) % len(self._channels)

    def pause(self, seconds: float | None) -> None:
        """Wait before the next attempt; ends early when closed."""
        self._clock.wait(self._closed, seconds)

    def forget_token(self, token: str | None) -> None:
        """Authenticate again before the next call, unless another thread already did."""
        if self._token == token:
            self._token = None

    def _authenticated_token(self, channel: Channel, deadline: Deadline) -> str | None:
        token = self._token
        if token is not None or not self.config.credentials.username:
            return token
        remaining = deadline.remaining()
        is_alone = self._token_lock.acquire(timeout=-1 if remaining is None else remaining)
        try:
            token = self._token
            if token is None:
                credentials = self.config.credentials
                request = AUTHENTICATE.request(name=credentials.username, password=credentials.password)
                self._token = token = channel.call(AUTHENTICATE, request, deadline.remaining(), _metadata(None)).token
        except grpc.RpcError as error:
            if "authentication is not enabled" not in Failure.of(error).details:
                raise
            self._token = token = ""
        finally:
            if is_alone:
                self._token_lock.release()
        return token

    def close(self) -> None:
        """Close all channels; calls under way raise ClosedError. Idempotent; does nothing in a forked child."""
        if self.is_foreign or self._closed.is_set():
            return
        self._closed.set()
        for channel in self._channels:
            channel.close()

    def __repr__(self) -> str:
        return f"<Connection {self.config.url} at {self._channels[self._current].endpoint}>"


def _metadata(token: str | None) -> Metadata:
    return (_REQUIRE_LEADER, ("token", token)) if token else (_REQUIRE_LEADER,)
