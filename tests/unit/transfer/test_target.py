from __future__ import annotations

import numpy as np
import pytest

from trunkline.errors import PeerGoneError
from trunkline.memory.kind import MemoryKind
from trunkline.transfer import target as module
from trunkline.transfer.target import Target

DRAM = MemoryKind.DRAM
NONE = np.empty((0, 3), np.uint64)


def rows(*starts: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    return np.array([(start, 8, 0) for start in starts], np.uint64)


def test_what_was_taken_back_is_remembered_until_it_is_offered_again() -> None:
    target = Target("prefill-0")
    assert target.former("UCX", DRAM).shape == (0, 3)
    target.remember("UCX", DRAM, rows(0, 8), offered=NONE)
    target.remember("UCX", DRAM, rows(16), offered=rows(8, 32))
    assert target.former("UCX", DRAM).tolist() == rows(0, 16).tolist()
    assert target.former("UCX", MemoryKind.VRAM).shape == (0, 3)


def test_only_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_RANGES", 3)
    target = Target("prefill-0")
    for start in range(0, 80, 16):
        target.remember("UCX", DRAM, rows(start, start + 8), offered=NONE)
    assert target.former("UCX", DRAM).tolist() == rows(56, 64, 72).tolist()


def test_a_peer_that_is_gone_says_why() -> None:
    target = Target("prefill-0")
    target.check()
    target.gone = "withdrawn"
    with pytest.raises(PeerGoneError, match="is gone: withdrawn; fetch it again"):
        target.check()
