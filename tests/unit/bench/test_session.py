from __future__ import annotations

import contextlib
import threading

import pytest

from trunkline.bench import session
from trunkline.bench.engine import trunkline as engine
from trunkline.bench.options import Options
from trunkline.bench.session import find_rank
from trunkline.errors import ConfigurationError


@pytest.mark.parametrize(
    ("options", "environment", "rank"),
    [
        (Options(), {}, None),
        (Options(rank=1), {"RANK": "0"}, 1),
        (Options(local=4), {"RANK": "3"}, 0),
        (Options(), {"RANK": "1"}, 1),
        (Options(), {"JOB_COMPLETION_INDEX": "0", "RANK": "1"}, 0),
        (Options(), {"SLURM_PROCID": "1", "RANK": "0"}, 1),
        (Options(), {"RANK": ""}, None),
    ],
)
def test_the_rank_is_given_or_the_cluster_managers(
    options: Options, environment: dict[str, str], rank: int | None
) -> None:
    assert find_rank(options, environment) == rank


@pytest.mark.parametrize(
    ("options", "environment", "match"),
    [
        (Options(rank=2), {}, "--rank=2: the group has 2 workers"),
        (Options(), {"SLURM_PROCID": "7"}, "SLURM_PROCID=7: the group has 2 workers"),
        (Options(), {"RANK": "one"}, "RANK=one"),
    ],
)
def test_a_rank_that_is_none_is_named_with_its_source(
    options: Options, environment: dict[str, str], match: str
) -> None:
    with pytest.raises(ConfigurationError, match=match):
        find_rank(options, environment)


def test_who_is_interrupted_does_not_wait_for_ever_for_what_was_begun_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    is_stuck, end = threading.Event(), threading.Event()

    def stuck(*_: object) -> list[object]:
        is_stuck.set()
        end.wait()
        return []

    monkeypatch.setattr(engine, "open_backends", stuck)
    monkeypatch.setattr(session, "PATIENCE_AFTER_FAILURE", 0.01)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(pytest.raises(KeyboardInterrupt))
            stack.enter_context(session._warming_up(Options()))
            assert is_stuck.wait(60)
            raise KeyboardInterrupt
    finally:
        end.set()
