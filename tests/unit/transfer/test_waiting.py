from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.transfer.conftest import request_of

from trunkline.errors import DeadlineError
from trunkline.transfer.waiting import as_completed, wait

if TYPE_CHECKING:
    from tests.unit.transfer.conftest import Bench


def test_transfers_come_as_they_end(bench: Bench) -> None:
    handles = [bench.read(row).post() for row in (0, 2, 4)]
    order = as_completed(handles)
    for index in (2, 0, 1):
        request_of(handles[index]).complete() if index else request_of(handles[index]).fail("x")
        assert next(order) is handles[index]
    assert list(order) == []
    assert [handle.ok for handle in handles] == [False, True, True]


def test_waiting_for_all_keeps_the_order(bench: Bench) -> None:
    handles = [bench.read(row).post() for row in (0, 2)]
    for handle in reversed(handles):
        request_of(handle).complete()
    assert wait(handles) == handles


def test_the_time_is_for_all_of_them(bench: Bench) -> None:
    handles = [bench.read(row).post() for row in (0, 2)]
    request_of(handles[0]).complete()
    with pytest.raises(DeadlineError, match=r"1 of 2 transfers were still running after 0\.05 s"):
        wait(handles, timeout=0.05)
    assert not handles[1].state.is_quiet
