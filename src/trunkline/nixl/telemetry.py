"""What a transfer cost, as NIXL tells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class nixlXferTelemetry:
    """Figures of a transfer's last round. Times are integers, in microseconds.

    Attributes:
        startTime: When it was posted, on the monotonic clock.
        postDuration: How long the call took that posted it.
        xferDuration: How long it took until it was seen to have ended; 0 while it runs.
        totalBytes: Size of the data.
        descCount: Descriptors, counted as NIXL does: those of a prepared transfer after neighbours were merged, unless
            that was not wanted; else those that were given.
    """

    startTime: int = 0
    postDuration: int = 0
    xferDuration: int = 0
    totalBytes: int = 0
    descCount: int = 0
