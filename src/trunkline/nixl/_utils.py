"""NIXL's helpers for tests: memory by address."""

from __future__ import annotations

import ctypes

from trunkline.errors import VerificationError

_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]


def malloc_passthru(size: int) -> int:
    """Return the address of new memory, to be given back by :func:`free_passthru`."""
    address = _libc.malloc(size)
    if address is None:
        raise MemoryError(f"no memory for {size} bytes")
    return int(address)


def free_passthru(address: int) -> None:
    """Give memory back that :func:`malloc_passthru` returned."""
    _libc.free(address)


def ba_buf(address: int, size: int) -> None:
    """Fill memory with 0xba."""
    ctypes.memset(address, 0xBA, size)


def verify_transfer(one: int, other: int, size: int) -> None:
    """Compare two pieces of memory.

    Raises:
        VerificationError: They differ.
    """
    if ctypes.string_at(one, size) != ctypes.string_at(other, size):
        raise VerificationError(f"{size} bytes at {one:#x} and at {other:#x} differ")
