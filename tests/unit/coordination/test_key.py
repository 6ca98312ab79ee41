from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.coordination.key import MAX_WORKERS, GroupKey, mask_of, parse_mask, parse_number
from trunkline.errors import ConfigurationError
from trunkline.metadata.key import DEFAULT_NAMESPACE

ranks = st.integers(0, MAX_WORKERS - 1)


@given(st.sets(ranks, min_size=1))
def test_a_mask_is_read_as_it_was_written(members: set[int]) -> None:
    mask = parse_mask(f"{mask_of(members):x}")
    assert mask is not None
    assert {rank for rank in range(MAX_WORKERS) if mask >> rank & 1} == members


@given(ranks)
def test_a_number_is_read_as_it_was_written(number: int) -> None:
    assert parse_number(str(number)) == number


@pytest.mark.parametrize("text", ["", "-1", "01", "1 ", " 1", "1\n", "٣", "1.0", "9" * 17, "x", "1/2"])
def test_what_no_worker_writes_is_no_number(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize("text", ["", "0", "01", "-1", "A", "g", "1\n", "f" * 257])
def test_what_no_worker_writes_is_no_mask(text: str) -> None:
    assert parse_mask(text) is None


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a\n", "a" * 256, "\ud800"])
def test_names_that_can_not_be_part_of_a_key_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="group name"):
        GroupKey(name)


def test_a_watch_of_the_run_sees_neither_inboxes_nor_chunks_nor_other_groups() -> None:
    group = GroupKey("a")
    run = group.of_run("0" * 32)
    assert run.seat(3).startswith(run.prefix)
    assert run.release(7) == f"{run.prefix}release/7"
    for key in (
        run.arrival(0, 7, 2),
        run.message(1, 0, 5),
        run.receipt(1, 0),
        run.collective_chunks(0, 7),
        run.message_chunks(0, 1),
    ):
        assert not key.startswith(group.run)
        assert key.startswith("/trunkline/groups/a/")
    assert not GroupKey("ab").run.startswith(group.run)
    assert not group.run.startswith(DEFAULT_NAMESPACE)


def test_an_inbox_is_one_workers_alone() -> None:
    run = GroupKey("a").of_run("0" * 32)
    assert not run.inbox(11).startswith(run.inbox(1))
