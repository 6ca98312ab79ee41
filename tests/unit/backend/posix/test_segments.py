from __future__ import annotations

import sys

import numpy as np
import pytest

if sys.platform != "linux":
    pytest.skip("the POSIX backend is for Linux only", allow_module_level=True)

from trunkline.backend.plugins.posix.segments import MEMORY, Segments


def test_slots_are_given_out_once_and_again_when_taken_back() -> None:
    segments = Segments()
    first = segments.add(np.array([MEMORY] * 100 + [7] * 100), np.zeros(200, np.uint64))
    assert len(set(first.tolist())) == 200
    assert segments.files(first).tolist() == [MEMORY] * 100 + [7] * 100
    before = segments.tenancy(first)
    assert (before > 0).all()
    assert segments.remove(first[150:]).tolist() == [7] * 50
    second = segments.add(np.full(50, 8, np.int64), np.zeros(50, np.uint64))
    assert set(second.tolist()) == set(first[150:].tolist())
    assert (segments.tenancy(first[:150]) == before[:150]).all()
    assert (segments.tenancy(second) != before[150:]).all()
    assert segments.count == 200


def test_slots_that_are_not_given_out_have_no_tenancy_and_are_not_taken_back() -> None:
    segments = Segments()
    slots = segments.add(np.zeros(1, np.int64), np.zeros(1, np.uint64))
    assert segments.tenancy(np.array([*slots, 63, 64, -1], np.int32)).tolist() == [1, -1, -1, -1]
    assert segments.remove(np.array([*slots, *slots, 63, 64, -1], np.int32)).tolist() == [0]
    assert segments.remove(slots).tolist() == []
    assert segments.count == 0
