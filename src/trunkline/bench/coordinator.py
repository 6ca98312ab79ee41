"""What the benchmark asks of a group of workers; trunkline.coordination.Group is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

TTL = 5.0
"""Seconds until the others hear of a worker that was killed, and its keys are gone."""


class Coordinator(Protocol):
    """A group, seen by one worker. A timeout that is not given is the group's."""

    @property
    def rank(self) -> int:
        """This worker's number."""
        ...

    @property
    def size(self) -> int:
        """How many workers there are."""
        ...

    def barrier(self, *, ranks: Iterable[int] | None = ..., timeout: float = ...) -> None:
        """Wait for the others, or for those of some ranks."""
        ...

    def gather(self, value: bytes, *, timeout: float = ...) -> list[Any] | None:
        """Return everybody's value at rank 0, None elsewhere."""
        ...

    def allgather(self, value: bytes, *, timeout: float = ...) -> list[Any]:
        """Return everybody's value."""
        ...


class Alone:
    """A group of one, which needs no store."""

    rank = 0
    size = 1

    def barrier(self, *, ranks: Iterable[int] | None = None, timeout: float = 0) -> None:
        """Return at once."""

    def gather(self, value: bytes, *, timeout: float = 0) -> list[Any] | None:  # noqa: ARG002 # nobody to wait for
        """Return the value."""
        return [value]

    def allgather(self, value: bytes, *, timeout: float = 0) -> list[Any]:  # noqa: ARG002 # nobody to wait for
        """Return the value."""
        return [value]
