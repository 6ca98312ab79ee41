from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from tests.standin.cufile import Standin

from trunkline.memory import cuda
from trunkline.memory.buffer import buffer_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the stand-in for CUDA's driver is built on Linux only")


def test_the_driver_knows_whose_memory_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LIBRARY", str(Standin().path))
    assert cuda.device_of(3 << 40) == 3
    assert cuda.device_of(0) is None
    interface = {"version": 3, "shape": (4,), "typestr": "<f4", "data": ((5 << 40) + 64, False)}
    assert buffer_of(SimpleNamespace(__cuda_array_interface__=interface)).device == 5


def test_without_a_driver_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("libnosuchcuda.so.1", "libc.so.6"):
        monkeypatch.setattr(cuda, "LIBRARY", library)
        assert cuda.device_of(3 << 40) is None
