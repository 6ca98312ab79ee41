from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import pytest

from trunkline.memory import dlpack

if TYPE_CHECKING:
    from collections.abc import Callable

_new = ctypes.pythonapi.PyCapsule_New
_new.restype = ctypes.py_object
_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


@pytest.fixture
def make_capsule() -> Callable[..., Any]:
    """Make DLPack capsules of memory that only exists on paper."""
    alive: list[Any] = []

    def make(
        name: bytes = b"dltensor_versioned",
        shape: tuple[int, ...] = (2, 3),
        strides: tuple[int, ...] | None = None,
        flags: int = 0,
        major: int = 1,
        **fields: int,
    ) -> Any:
        values = {"data": 0x1000, "device_type": 2, "device_id": 1, "code": 2, "bits": 32, "lanes": 1, **fields}
        tensor = dlpack._Tensor(ndim=len(shape), **values)
        tensor.shape = (ctypes.c_int64 * len(shape))(*shape)
        if strides is not None:
            tensor.strides = (ctypes.c_int64 * len(strides))(*strides)
        versioned = dlpack._Versioned(major=major, minor=1, flags=flags, tensor=tensor)
        content = versioned if name == b"dltensor_versioned" else tensor
        alive.extend((content, tensor, name))
        return _new(ctypes.addressof(content), name, None)

    return make
