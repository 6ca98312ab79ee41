from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trunkline.errors import UnsupportedBufferError
from trunkline.memory.dlpack import CapsuleTensor, export, is_contiguous, read
from trunkline.memory.kind import MemoryKind

MakeCapsule = Callable[..., Any]


class OldProducer:
    """An array from before DLPack 1.0, whose ``__dlpack__`` takes no arguments."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array

    def __dlpack__(self) -> Any:
        return self.array.__dlpack__()


@pytest.mark.parametrize("producer", [np.asarray, OldProducer])
def test_reads_real_capsules_without_consuming_them(producer: Any) -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    capsule = export(producer(array))
    expected = CapsuleTensor(MemoryKind.DRAM, array.ctypes.data, 0, "I16", 2, (2, 3), True, False)
    assert read(capsule) == read(capsule) == expected


def test_a_capsule_keeps_the_memory_alive_and_lets_go_of_it() -> None:
    class Array(np.ndarray[Any, Any]):
        pass

    array = np.ones(4).view(Array)
    alive = weakref.ref(array)
    capsule = export(array)
    read(capsule)
    del array
    gc.collect()
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None


def test_readonly_and_strided_arrays_say_so() -> None:
    array = np.ones((2, 4))
    array.flags.writeable = False
    assert read(export(array)).readonly
    assert not read(export(np.ones((2, 4))[:, :2])).is_contiguous


@pytest.mark.parametrize(
    ("device_type", "kind"),
    [
        (1, MemoryKind.DRAM),
        (2, MemoryKind.VRAM),
        (3, MemoryKind.DRAM),
        (10, MemoryKind.VRAM),
        (11, MemoryKind.DRAM),
        (13, MemoryKind.VRAM),
    ],
)
@pytest.mark.parametrize("name", [b"dltensor", b"dltensor_versioned"])
def test_devices(make_capsule: MakeCapsule, name: bytes, device_type: int, kind: MemoryKind) -> None:
    tensor = read(make_capsule(name, device_type=device_type, byte_offset=16))
    assert tensor == CapsuleTensor(kind, 0x1010, 1, "F32", 4, (2, 3), True, False)


@pytest.mark.parametrize(
    ("code", "bits", "name"),
    [
        (0, 8, "I8"),
        (1, 64, "U64"),
        (2, 16, "F16"),
        (4, 16, "BF16"),
        (5, 64, "C64"),
        (6, 8, "BOOL"),
        (10, 8, "F8_E4M3"),
        (11, 8, "F8_E4M3FNUZ"),
        (12, 8, "F8_E5M2"),
        (13, 8, "F8_E5M2FNUZ"),
        (14, 8, "F8_E8M0"),
        (5, 128, None),
        (3, 64, None),
        (8, 8, None),
    ],
)
def test_element_types(make_capsule: MakeCapsule, code: int, bits: int, name: str | None) -> None:
    tensor = read(make_capsule(code=code, bits=bits))
    assert (tensor.dtype, tensor.item_size) == (name, bits // 8)


def test_vectors_have_no_element_type(make_capsule: MakeCapsule) -> None:
    tensor = read(make_capsule(lanes=4))
    assert (tensor.dtype, tensor.item_size) == (None, 16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": b"used_dltensor"}, "no unused DLPack capsule"),
        ({"major": 2}, "DLPack 2.1 is not understood"),
        ({"flags": 2}, "returned a copy"),
        ({"device_type": 8}, "device type 8 is not supported"),
        ({"device_id": -1}, "on device -1"),
        ({"shape": (1,) * 65}, "65 axes"),
        ({"bits": 4}, "elements of 4 bits"),
        ({"bits": 0}, "elements of 0 bits"),
    ],
)
def test_refuses(make_capsule: MakeCapsule, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedBufferError, match=message):
        read(make_capsule(**fields))


def test_refuses_what_is_no_capsule() -> None:
    with pytest.raises(UnsupportedBufferError, match="no unused DLPack capsule"):
        read("capsule")


@pytest.mark.parametrize(
    ("shape", "strides", "expected"),
    [
        ((2, 3), (3, 1), True),
        ((2, 3), (1, 2), False),
        ((2, 3), (4, 1), False),
        ((1, 3), (99, 1), True),
        ((2, 1, 3), (3, 77, 1), True),
        ((), (), True),
        ((3,), (0,), False),
    ],
)
def test_contiguity(shape: tuple[int, ...], strides: tuple[int, ...], expected: bool) -> None:
    assert is_contiguous(shape, strides) is expected
    assert is_contiguous(shape, tuple(8 * stride for stride in strides), 8) is expected
