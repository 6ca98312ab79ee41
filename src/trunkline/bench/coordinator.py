"""What the benchmark asks of a group of workers; trunkline.coordination.Group is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


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

    def barrier(self, *, timeout: float | None = None, ranks: Sequence[int] | None = None) -> None:
        """Wait for the others."""
        ...

    def gather(
        self, value: Any, root: int = 0, *, timeout: float | None = None, ranks: Sequence[int] | None = None
    ) -> list[Any] | None:
        """Return everybody's value at the root, None elsewhere."""
        ...

    def allgather(self, value: Any, *, timeout: float | None = None, ranks: Sequence[int] | None = None) -> list[Any]:
        """Return everybody's value."""
        ...

    def fail(self, reason: str) -> None:
        """Tell the others that this worker gives up."""
        ...


class Alone:
    """A group of one, which needs no store."""

    rank = 0
    size = 1

    def barrier(self, *, timeout: float | None = None, ranks: Sequence[int] | None = None) -> None:
        """Return at once."""

    def gather(
        self, value: Any, root: int = 0, *, timeout: float | None = None, ranks: Sequence[int] | None = None
    ) -> list[Any] | None:
        """Return the value."""
        return [value]

    def allgather(self, value: Any, *, timeout: float | None = None, ranks: Sequence[int] | None = None) -> list[Any]:
        """Return the value."""
        return [value]

    def fail(self, reason: str) -> None:
        """There is nobody to tell."""
