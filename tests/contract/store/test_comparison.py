"""Random histories on the memory store under two names: the comparison itself gives no false alarm."""

from __future__ import annotations

from hypothesis import given, settings

from trunkline.store import open_store
from trunkline.testing.store_comparison import Step, histories, run


@settings(max_examples=50, deadline=None)
@given(histories)
def test_a_busy_and_a_quiet_store_answer_alike(steps: list[Step]) -> None:
    with open_store("memory://left") as left, open_store("memory://right") as right:
        run(left, "/noise/", steps)
        assert run(left, "/left/", steps) == run(right, "/right/", steps)
