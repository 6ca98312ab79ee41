"""Asks CUDA's driver, where it is there, which GPU some memory belongs to."""

from __future__ import annotations

import ctypes

LIBRARY = "libcuda.so.1"

_DEVICE_ORDINAL = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL


def device_of(address: int) -> int | None:
    """Return the number of the GPU, or None if there is no driver or it does not know the address."""
    try:
        ask = ctypes.CDLL(LIBRARY).cuPointerGetAttribute
    except (OSError, AttributeError):
        return None
    ask.restype, ask.argtypes = ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64]
    device = ctypes.c_int(-1)
    status: int = ask(ctypes.byref(device), _DEVICE_ORDINAL, address)
    return None if status or device.value < 0 else device.value
