"""Waiting for several transfers."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

from trunkline.clock import Deadline
from trunkline.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trunkline.transfer.handle import TransferHandle


def as_completed(transfers: Iterable[TransferHandle], timeout: float | None = 30.0) -> Iterator[TransferHandle]:
    """Yield transfers as they end, well or badly; look at ``ok`` and ``error``.

    Args:
        transfers: Posted transfers, of one or several agents; each is yielded once.
        timeout: Seconds for all of them together; None waits for ever.

    Raises:
        DeadlineError: ``timeout`` ran out with some still running; none was cancelled.
    """
    pending = set(transfers)
    total = len(pending)
    ended: queue.SimpleQueue[TransferHandle] = queue.SimpleQueue()
    for transfer in pending:
        transfer.add_done_callback(ended.put)
    deadline = Deadline(timeout)
    for done in range(total):
        try:
            yield ended.get(timeout=deadline.remaining())
        except queue.Empty:
            raise DeadlineError(
                f"{total - done} of {total} transfers were still running after {timeout:g} s; none was cancelled",
                timeout=timeout,
            ) from None


def wait(transfers: Iterable[TransferHandle], timeout: float | None = 30.0) -> list[TransferHandle]:
    """Wait until all transfers ended, and return them in the order given; look at ``ok`` and ``error`` of each.

    Args:
        transfers: Posted transfers.
        timeout: Seconds for all of them together; None waits for ever.

    Raises:
        DeadlineError: ``timeout`` ran out with some still running; none was cancelled.
    """
    ordered = list(transfers)
    for _ in as_completed(ordered, timeout):
        pass
    return ordered
