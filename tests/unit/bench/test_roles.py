from __future__ import annotations

from typing import Any

import pytest

from trunkline.bench.options import Options
from trunkline.bench.roles import assign_roles
from trunkline.errors import ConfigurationError


@pytest.mark.parametrize(
    ("changes", "pairs", "parts"),
    [
        ({"workers": 4}, [(0, 2), (1, 3)], 1),
        ({"workers": 3, "scheme": "manytoone"}, [(0, 2), (1, 2)], 1),
        ({"workers": 3, "scheme": "onetomany"}, [(0, 1), (0, 2)], 1),
        ({"scheme": "tp", "num_target_dev": 2}, [(0, 1), (0, 2)], 2),
        ({"scheme": "tp", "num_initiator_dev": 4, "num_target_dev": 2}, [(0, 4), (1, 4), (2, 5), (3, 5)], 2),
        ({"bidirectional": True}, [(0, 1), (1, 0)], 1),
        ({"engine": "both"}, [(0, 1), (2, 3)], 1),
        ({"backend": "POSIX"}, [(0, 0)], 1),
    ],
)
def test_who_moves_blocks_to_whom(changes: dict[str, Any], pairs: list[tuple[int, int]], parts: int) -> None:
    roles = assign_roles(Options(**changes))
    assert [tuple(pair) for pair in roles.pairs] == pairs
    assert roles.parts == parts


def test_engines_share_the_workers_out() -> None:
    roles = assign_roles(Options(engine="both"))
    assert roles.teams == (("trunkline", (0, 1)), ("nixl", (2, 3)))
    assert roles.team_of(3) == ("nixl", (2, 3))


def test_what_a_worker_asks() -> None:
    roles = assign_roles(Options(workers=3, scheme="manytoone"))
    assert (roles.targets_of(0), roles.targets_of(2)) == ([2], [])
    assert (roles.initiators_of(0), roles.initiators_of(2)) == ([], [0, 1])
    assert roles.most_peers == 2


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"workers": 1}, "there must be 2 at least"),
        ({"workers": 5}, "pairs need an even number"),
        ({"workers": 3, "mode": "MG"}, "in --mode MG there are 2"),
        ({"workers": 3, "scheme": "tp"}, "don't add up"),
        ({"scheme": "tp", "num_initiator_dev": 2, "num_target_dev": 3}, "must be a multiple"),
        ({"scheme": "tp", "num_target_dev": 3}, "cuts blocks into 3 parts"),
        ({"engine": "both", "workers": 3}, "as many workers for each engine"),
    ],
)
def test_workers_that_cannot_be_shared_out(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        assign_roles(Options(**changes))
