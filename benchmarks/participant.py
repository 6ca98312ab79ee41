"""What both sides of the comparison do; one class for ours and one for NIXL implement it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WARMUP = 5
"""Repetitions that are not counted."""


class Participant(Protocol):
    """An agent in a process of its own.

    Times are lists of seconds, one per repetition; instants are ``time.monotonic()``, which all processes share.
    """

    def __init__(self, name: str, store: str | None) -> None: ...

    def register(self, count: int, size: int) -> int:
        """Register regions side by side and return the address of the first."""

    def metadata(self) -> bytes: ...

    def load(self, data: bytes, address: int) -> None:
        """Load the peer; transfers then use its memory from that address on."""

    def move(self, operation: str, size: int, repetitions: int) -> list[float]:
        """Move one block, again and again with one handle: post until done."""

    def scatter(self, operation: str, count: int, size: int, stride: int, repetitions: int) -> dict[str, list[float]]:
        """Move many blocks: ``plan`` (from arrays of addresses), ``post``, ``total``, and ``again``: posted again."""

    def ping(self, peer: str, payload: bytes, repetitions: int) -> list[float]:
        """Send notifications to an ``echo``, one at a time, and wait for each to return."""

    def echo(self, peer: str, repetitions: int) -> None: ...

    def publish(self) -> tuple[float, float]:
        """Return when the call began and ended."""

    def withdraw(self) -> float:
        """Return when the call began."""

    def fetch(self, name: str) -> tuple[float, float]:
        """Return when the call began, and when the peer was loaded."""

    def wait_forgotten(self, name: str) -> float | None:
        """Return when a loaded peer that withdraws could not be used any more; None if it still can."""

    def fetch_many(self, names: Sequence[str]) -> float:
        """Fetch agents that have published; return the seconds until all were loaded."""

    def forget(self, name: str) -> None:
        """Let go of a peer that has withdrawn."""

    def encode(self, repetitions: int) -> list[float]:
        """Make the metadata."""

    def decode(self, data: bytes, repetitions: int) -> list[float]:
        """Load a peer from its metadata; unloading it again is not counted."""

    def close(self) -> None: ...


class Crowd(Protocol):
    """Many agents in a process of their own, published, each with one region of memory."""

    def __init__(self, names: Sequence[str], size: int, store: str) -> None: ...

    def close(self) -> None: ...


def blocks(address: int, count: int, size: int, stride: int) -> NDArray[np.uint64]:
    """Return N×3 rows (address, length, device)."""
    start = np.uint64(address) + np.arange(count, dtype=np.uint64) * np.uint64(stride)
    return np.stack([start, np.full(count, size, np.uint64), np.zeros(count, np.uint64)], 1)
