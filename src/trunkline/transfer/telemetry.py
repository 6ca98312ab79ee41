"""What one transfer cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TransferTelemetry:
    """Figures of a transfer's last round.

    Attributes:
        bytes: Size of the data.
        blocks: Blocks asked for.
        descriptors: Operations posted after coalescing.
        post_us: Time the posting call took, in microseconds.
        total_us: Time from posting until the transfer was seen quiet, in microseconds; 0 while it runs.
        backend: Name of the backend.
        transports: What the backend really uses to reach the peer (``"cma/memory"``); empty if it can't tell.
    """

    bytes: int
    blocks: int
    descriptors: int
    post_us: float
    total_us: float
    backend: str
    transports: tuple[str, ...]

    @property
    def bandwidth_gbps(self) -> float:
        """10^9 bytes per second over the total time; 0 while it runs."""
        return self.bytes / self.total_us / 1e3 if self.total_us else 0.0
