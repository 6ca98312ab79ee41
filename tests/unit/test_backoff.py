from __future__ import annotations

from trunkline.backoff import LONGEST, SHORTEST, Backoff


def test_delays_grow_within_their_bounds() -> None:
    backoff = Backoff()
    assert SHORTEST <= backoff.next_delay() <= 2 * SHORTEST
    delays = [backoff.next_delay() for _ in range(200)]
    assert all(SHORTEST <= delay <= LONGEST for delay in delays)
    assert max(delays) > LONGEST / 2
    assert len(set(delays)) > 100


def test_reset_starts_again() -> None:
    backoff = Backoff()
    for _ in range(10):
        backoff.next_delay()
    backoff.reset()
    assert backoff.next_delay() <= 2 * SHORTEST
