"""The states of a transfer, as one table. Nothing else decides what may follow what.

A transfer is *quiet* in every state but POSTED and CANCELLING: the transport touches none of its memory. Each arrow
into DONE, FAILED or CANCELLED is taken only once the backend has reported the request drained.

Two things end a transfer early: its owner (CANCEL) and its deadline (EXPIRE). Both lead to CANCELLING, where nothing
more is posted and what was posted drains. If all of it had been posted already and arrives, the transfer is DONE all
the same. Otherwise the cause decides: an owner's cancel ends in CANCELLED, a deadline in FAILED.
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """Where a transfer stands."""

    PREPARED = 0
    POSTED = 1
    CANCELLING = 2
    DONE = 3
    FAILED = 4
    CANCELLED = 5

    @property
    def is_quiet(self) -> bool:
        """Whether the transport touches none of the transfer's memory."""
        return self not in RUNNING

    @property
    def has_ended(self) -> bool:
        """Whether a posted transfer came to its end."""
        return self >= State.DONE


class Event(IntEnum):
    """What happens to a transfer."""

    POST = 0
    COMPLETE = 1
    FAIL = 2
    CANCEL = 3
    EXPIRE = 4
    STOP = 5
    """Drained after a cancel, with rows left unposted or aborted."""


RUNNING = frozenset({State.POSTED, State.CANCELLING})
"""The states that are not quiet."""

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.PREPARED, Event.POST): State.POSTED,
    # A quiet transfer may be posted again: after success the next round, after failure a retry.
    (State.DONE, Event.POST): State.POSTED,
    (State.FAILED, Event.POST): State.POSTED,
    (State.CANCELLED, Event.POST): State.POSTED,
    (State.POSTED, Event.COMPLETE): State.DONE,
    (State.POSTED, Event.FAIL): State.FAILED,
    (State.POSTED, Event.CANCEL): State.CANCELLING,
    (State.POSTED, Event.EXPIRE): State.CANCELLING,
    (State.CANCELLING, Event.COMPLETE): State.DONE,
    (State.CANCELLING, Event.FAIL): State.FAILED,
    (State.CANCELLING, Event.STOP): State.CANCELLED,
}
