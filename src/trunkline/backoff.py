"""How long to wait between attempts."""

from __future__ import annotations

import random

SHORTEST = 0.2
LONGEST = 2.0


class Backoff:
    """Growing, random delays, so that many clients don't come back to a server at the same instant.

    Each delay is drawn between ``SHORTEST`` and a ceiling that doubles up to ``LONGEST`` (seconds).
    """

    def __init__(self) -> None:
        self._ceiling = SHORTEST

    def next_delay(self) -> float:
        """Return the next delay in seconds."""
        self._ceiling = min(LONGEST, 2 * self._ceiling)
        return random.uniform(SHORTEST, self._ceiling)  # noqa: S311 - no secret depends on it

    def reset(self) -> None:
        """Start again with short delays, after a success."""
        self._ceiling = SHORTEST
