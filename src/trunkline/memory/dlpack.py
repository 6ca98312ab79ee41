"""Reads DLPack capsules where they are, without consuming them.

A capsule that nobody consumes calls the producer's deleter when it is freed, so holding it keeps the memory
alive. Layouts are those of ``dlpack.h`` 1.1 (DLManagedTensorVersioned) and of older producers (DLManagedTensor).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from math import prod
from typing import Any

from trunkline.errors import UnsupportedBufferError
from trunkline.memory.dtype import DTYPES
from trunkline.memory.kind import MemoryKind

MAX_DIMENSIONS = 64

_KINDS = {
    1: MemoryKind.DRAM,  # kDLCPU
    2: MemoryKind.VRAM,  # kDLCUDA
    3: MemoryKind.DRAM,  # kDLCUDAHost
    10: MemoryKind.VRAM,  # kDLROCM
    11: MemoryKind.DRAM,  # kDLROCMHost
    13: MemoryKind.VRAM,  # kDLCUDAManaged
}
_LETTERS = {0: "I", 1: "U", 2: "F", 4: "BF", 5: "C"}  # DLDataTypeCode; the name goes on with the bits
_NAMES = {  # (code, bits)
    (6, 8): "BOOL",
    (10, 8): "F8_E4M3",
    (11, 8): "F8_E4M3FNUZ",
    (12, 8): "F8_E5M2",
    (13, 8): "F8_E5M2FNUZ",
    (14, 8): "F8_E8M0",
}
_READ_ONLY = 1
_IS_COPIED = 2


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype = ctypes.c_int
_is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


@dataclass(frozen=True, slots=True)
class CapsuleTensor:
    """What a capsule says.

    Attributes:
        kind: Kind of memory.
        address: Address of the first element.
        device: Device number.
        dtype: safetensors' name of the element type, or None if it has none.
        item_size: Bytes of one element.
        shape: Elements along each axis.
        is_contiguous: Whether elements lie in C order without gaps.
        readonly: Whether the producer forbids writing.
    """

    kind: MemoryKind
    address: int
    device: int
    dtype: str | None
    item_size: int
    shape: tuple[int, ...]
    is_contiguous: bool
    readonly: bool


def export(source: Any) -> Any:
    """Ask an object with ``__dlpack__`` for a capsule, without a copy."""
    try:
        return source.__dlpack__(max_version=(1, 0), copy=False)
    except TypeError:  # a producer from before DLPack 1.0 takes no such arguments
        return source.__dlpack__()


def read(capsule: Any) -> CapsuleTensor:
    """Read a capsule that stays its producer's.

    Raises:
        UnsupportedBufferError: No capsule, used up, of an unknown version, a copy, on an unsupported device, or with
            elements smaller than a byte.
    """
    flags = 0
    if _is_valid(capsule, b"dltensor_versioned"):
        versioned = ctypes.cast(_pointer(capsule, b"dltensor_versioned"), ctypes.POINTER(_Versioned)).contents
        if versioned.major != 1:
            raise UnsupportedBufferError(f"DLPack {versioned.major}.{versioned.minor} is not understood; 1.x is")
        flags, tensor = versioned.flags, versioned.tensor
    elif _is_valid(capsule, b"dltensor"):
        tensor = ctypes.cast(_pointer(capsule, b"dltensor"), ctypes.POINTER(_Tensor)).contents
    else:
        raise UnsupportedBufferError("__dlpack__ returned no unused DLPack capsule")
    if flags & _IS_COPIED:
        raise UnsupportedBufferError("__dlpack__ returned a copy: what arrives there would not be seen by the original")
    if tensor.device_type not in _KINDS:
        raise UnsupportedBufferError(f"memory of DLPack device type {tensor.device_type} is not supported")
    if not 0 <= tensor.ndim <= MAX_DIMENSIONS or tensor.device_id < 0:
        raise UnsupportedBufferError(f"a DLPack tensor of {tensor.ndim} axes on device {tensor.device_id}")
    item_bits = tensor.bits * tensor.lanes
    if not item_bits or item_bits % 8:
        raise UnsupportedBufferError(f"DLPack elements of {item_bits} bits; whole bytes are needed: view it as uint8")
    shape = tuple(tensor.shape[: tensor.ndim]) if tensor.ndim else ()
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.ndim and tensor.strides else None
    name = _NAMES.get((tensor.code, tensor.bits), f"{_LETTERS.get(tensor.code)}{tensor.bits}")
    return CapsuleTensor(
        kind=_KINDS[tensor.device_type],
        address=(tensor.data or 0) + tensor.byte_offset,
        device=tensor.device_id,
        dtype=name if name in DTYPES and tensor.lanes == 1 else None,
        item_size=item_bits // 8,
        shape=shape,
        is_contiguous=strides is None or is_contiguous(shape, strides),
        readonly=bool(flags & _READ_ONLY),
    )


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], item_size: int = 1) -> bool:
    """Return whether elements lie in C order without gaps (axes of length 1 may have any stride)."""
    return all(
        length == 1 or stride == item_size * prod(shape[axis + 1 :])
        for axis, (length, stride) in enumerate(zip(shape, strides, strict=True))
    )
