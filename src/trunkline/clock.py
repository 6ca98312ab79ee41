"""Time as a dependency, so that tests control it."""

from __future__ import annotations

import enum
import time
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    import threading


class UseDefault(enum.Enum):
    """The type of ``DEFAULT``: as a timeout it stands for the agent's own."""

    DEFAULT = "default"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = UseDefault.DEFAULT

Timeout: TypeAlias = float | UseDefault | None
"""Seconds; None to wait for ever; ``DEFAULT`` for the agent's default."""


class Clock(Protocol):
    """A monotonic clock that can be waited on. Methods may be called from any thread."""

    def monotonic(self) -> float:
        """Return seconds since some fixed point; never goes backwards."""
        ...

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Wait until ``event`` is set or ``timeout`` seconds of this clock passed; return whether it is set."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        return event.wait(timeout)


SYSTEM_CLOCK = SystemClock()


class Deadline:
    """A point in time, made once from a caller's timeout and handed down.

    Args:
        timeout: Seconds from now; None means never.
        clock: The clock that measures it.
    """

    __slots__ = ("_at", "_clock", "_started")

    def __init__(self, timeout: float | None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._started = clock.monotonic()
        self._at = None if timeout is None else self._started + max(0.0, timeout)

    def remaining(self, at_most: float | None = None) -> float | None:
        """Return the seconds left (never negative), at most ``at_most``; None if there is no end."""
        if self._at is None:
            return at_most
        left = max(0.0, self._at - self._clock.monotonic())
        return left if at_most is None else min(left, at_most)

    @property
    def has_passed(self) -> bool:
        return self._at is not None and self._clock.monotonic() >= self._at

    @property
    def elapsed(self) -> float:
        """Seconds since the deadline was made."""
        return self._clock.monotonic() - self._started
