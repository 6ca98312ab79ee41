"""What the benchmark asks of a group of workers; trunkline.coordination.Group is one."""

from __future__ import annotations

from typing import Any, Protocol

TTL = 5.0
"""Seconds until the others hear of a worker that was killed, and its keys are gone."""


class Coordinator(Protocol):
    """A group, seen by one worker."""

    @property
    def rank(self) -> int:
        """This worker's number."""
        ...

    @property
    def size(self) -> int:
        """How many workers there are."""
        ...

    def barrier(self) -> None:
        """Wait for the others."""
        ...

    def gather(self, value: bytes) -> list[Any] | None:
        """Return everybody's value at rank 0, None elsewhere."""
        ...

    def allgather(self, value: bytes) -> list[Any]:
        """Return everybody's value."""
        ...


class Alone:
    """A group of one, which needs no store."""

    rank = 0
    size = 1

    def barrier(self) -> None:
        """Return at once."""

    def gather(self, value: bytes) -> list[Any] | None:
        """Return the value."""
        return [value]

    def allgather(self, value: bytes) -> list[Any]:
        """Return the value."""
        return [value]
