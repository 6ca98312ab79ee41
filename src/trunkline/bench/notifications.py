"""Notifications there and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.bench.engine.contract import Engine


class RoundTrip:
    """A notification to a peer that sends it back: a request as the measuring loop knows it."""

    __slots__ = ("_engine", "_payload", "_peer")

    def __init__(self, engine: Engine, peer: str, size: int) -> None:
        self._engine = engine
        self._peer = peer
        self._payload = bytes(size)

    def post(self) -> None:
        self._engine.notify(self._peer, self._payload)

    def poll(self) -> bool:
        raise NotImplementedError("a round trip is waited for, not polled")

    def wait(self, timeout: float) -> None:
        self._engine.wait_notification(timeout)


def echo(engine: Engine, peer: str, count: int, timeout: float) -> None:
    """Send so many notifications back.

    Raises:
        DeadlineError: One did not come within ``timeout`` seconds.
    """
    for _ in range(count):
        engine.notify(peer, engine.wait_notification(timeout))
