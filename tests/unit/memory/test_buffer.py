from __future__ import annotations

import array
import ctypes
import gc
import mmap
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trunkline.errors import UnsupportedBufferError
from trunkline.memory.buffer import Buffer, buffer_of
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Callable

DRAM, VRAM = MemoryKind.DRAM, MemoryKind.VRAM


def read_back(buffer: Buffer) -> bytes:
    return ctypes.string_at(buffer.address, buffer.nbytes)


class Torch:
    """A stand-in with what torch tensors have, over a numpy array."""

    def __init__(self, data: np.ndarray[Any, Any], dtype: str, device: str = "cpu", index: int | None = None) -> None:
        self.data = data
        self.shape = data.shape
        self.dtype = type("dtype", (), {"__str__": lambda _: dtype})()
        self.device = SimpleNamespace(type=device, index=index)

    def data_ptr(self) -> int:
        return self.data.ctypes.data

    def element_size(self) -> int:
        return self.data.itemsize

    def is_contiguous(self) -> bool:
        return self.data.flags.c_contiguous

    def __dlpack__(self) -> Any:
        raise AssertionError("torch tensors are read without DLPack, which knows fewer of them")

    def __dlpack_device__(self) -> Any:
        raise AssertionError


class TestNumpy:
    @pytest.mark.parametrize(
        ("dtype", "name"),
        [("f4", "F32"), ("f2", "F16"), ("i8", "I64"), ("u1", "U8"), ("?", "BOOL"), ("c8", "C64"), ("u2", "U16")],
    )
    def test_is_described_in_place(self, dtype: str, name: str) -> None:
        source = np.arange(6).astype(dtype).reshape(2, 3)
        buffer = buffer_of(source)
        assert buffer == Buffer(DRAM, source.ctypes.data, source.nbytes, 0, name, (2, 3))
        assert buffer.owner is source
        assert read_back(buffer) == source.tobytes()

    @pytest.mark.parametrize("dtype", ["c16", "M8[s]", ">f4", "S8"])
    def test_other_elements_are_bytes_on_a_last_axis(self, dtype: str) -> None:
        source = np.zeros((2, 3), dtype)
        buffer = buffer_of(source)
        assert (buffer.dtype, buffer.shape) == (None, (2, 3, source.itemsize))

    def test_views_have_their_own_address(self) -> None:
        source = np.zeros((4, 8), np.float32)
        assert buffer_of(source[2:3]).address == source.ctypes.data + 64
        assert buffer_of(np.zeros(())).shape == ()

    def test_readonly(self) -> None:
        source = np.zeros(3)
        source.flags.writeable = False
        assert buffer_of(source).readonly

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            (np.zeros((4, 4)).T[:, :2], "not C-contiguous; register the whole array and index what register"),
            (np.asfortranarray(np.zeros((4, 4))), "not C-contiguous"),
            (np.broadcast_to(np.zeros(1), (4,)), "not C-contiguous"),
            (np.zeros((0, 4)), r"is empty \(shape \(0, 4\)\)"),
            (np.array([{}]), "dtype object"),
            (np.zeros(2, [("a", "i4")]), "use plain numbers"),
            (np.float64(3), "numpy scalar"),
        ],
    )
    def test_refuses(self, source: Any, message: str) -> None:
        with pytest.raises(UnsupportedBufferError, match=message):
            buffer_of(source)


class TestBytes:
    @pytest.mark.parametrize(
        ("source", "dtype", "shape", "readonly"),
        [
            (b"abcd", "U8", (4,), True),
            (bytearray(b"abcd"), "U8", (4,), False),
            (memoryview(bytearray(8))[2:5], "U8", (3,), False),
            (memoryview(bytes(8)).cast("B", (2, 4)), "U8", (2, 4), True),
            (array.array("f", [1, 2]), "F32", (2,), False),
            (array.array("q", [1, 2]), "I64", (2,), False),
            (array.array("L", [1, 2]), f"U{8 * array.array('L').itemsize}", (2,), False),
            ((ctypes.c_int16 * 3 * 2)(), "I16", (2, 3), False),
            (ctypes.c_double(4), "F64", (), False),
            ((ctypes.c_int32.__ctype_be__ * 2)(), None, (2, 4), False),
            (type("Pair", (ctypes.Structure,), {"_fields_": [("a", ctypes.c_int64 * 2)]})(), None, (16,), False),
        ],
    )
    def test_is_described_in_place(
        self, source: Any, dtype: str | None, shape: tuple[int, ...], readonly: bool
    ) -> None:
        buffer = buffer_of(source)
        assert (buffer.kind, buffer.device, buffer.dtype, buffer.shape) == (DRAM, 0, dtype, shape)
        assert buffer.readonly is readonly
        assert read_back(buffer) == bytes(memoryview(source))

    def test_writes_are_seen_by_the_source(self) -> None:
        source = bytearray(4)
        buffer = buffer_of(source)
        ctypes.memset(buffer.address, 7, 4)
        assert source == b"\x07" * 4

    def test_a_bytearray_keeps_its_size_while_the_buffer_lives(self) -> None:
        source = bytearray(4)
        buffer = buffer_of(source)
        with pytest.raises(BufferError):
            source.append(1)
        del buffer
        gc.collect()
        source.append(1)

    def test_an_mmap_stays_open_while_the_buffer_lives(self) -> None:
        with mmap.mmap(-1, 4096) as source:
            buffer = buffer_of(source)
            with pytest.raises(BufferError):
                source.close()
            assert buffer.nbytes == 4096
            del buffer
            gc.collect()

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            (b"", "is empty"),
            (bytearray(), "is empty"),
            (memoryview(b"abcdef")[::2], "not C-contiguous"),
            ("text", "a str can't be registered: it offers no memory"),
            ([1, 2], "offers no memory: use numpy arrays, torch tensors"),
            (None, "offers no memory"),
        ],
    )
    def test_refuses(self, source: Any, message: str) -> None:
        with pytest.raises(UnsupportedBufferError, match=message) as caught:
            buffer_of(source)
        assert isinstance(caught.value, TypeError)

    def test_refuses_released_memory(self) -> None:
        view = memoryview(b"abc")
        view.release()
        with pytest.raises(UnsupportedBufferError):
            buffer_of(view)


class TestTorch:
    @pytest.mark.parametrize(
        ("dtype", "item", "name"),
        [
            ("torch.bfloat16", "u2", "BF16"),
            ("torch.float8_e4m3fn", "u1", "F8_E4M3"),
            ("torch.float8_e5m2", "u1", "F8_E5M2"),
            ("torch.float32", "f4", "F32"),
            ("torch.bool", "?", "BOOL"),
        ],
    )
    def test_dtypes_that_numpy_lacks_are_known(self, dtype: str, item: str, name: str) -> None:
        data = np.zeros((2, 3), item)
        assert buffer_of(Torch(data, dtype)) == Buffer(DRAM, data.ctypes.data, data.nbytes, 0, name, (2, 3))

    def test_unknown_dtypes_are_bytes(self) -> None:
        buffer = buffer_of(Torch(np.zeros((2, 3), "u1"), "torch.float4_e2m1fn_x2"))
        assert (buffer.dtype, buffer.shape) == (None, (2, 3, 1))

    def test_devices(self) -> None:
        buffer = buffer_of(Torch(np.zeros(3), "torch.float64", "cuda", 2))
        assert (buffer.kind, buffer.device) == (VRAM, 2)
        with pytest.raises(UnsupportedBufferError, match="cpu and cuda are supported"):
            buffer_of(Torch(np.zeros(3), "torch.float64", "mps", 0))

    def test_refuses_what_is_not_plain_memory(self) -> None:
        with pytest.raises(UnsupportedBufferError, match="not C-contiguous"):
            buffer_of(Torch(np.zeros((3, 3)).T, "torch.float64"))
        lazy = Torch(np.zeros(3), "torch.float64")
        lazy.is_conj = lambda: True  # type: ignore[attr-defined]
        with pytest.raises(UnsupportedBufferError, match=r"use \.resolve_conj\(\)"):
            buffer_of(lazy)
        sparse = Torch(np.zeros(3), "torch.float64")

        def refuse() -> int:
            raise RuntimeError("no storage")

        sparse.data_ptr = refuse  # type: ignore[method-assign]
        with pytest.raises(UnsupportedBufferError, match="has no plain storage: no storage"):
            buffer_of(sparse)

    def test_a_tensor_without_memory_is_refused(self) -> None:
        fake = Torch(np.zeros(3), "torch.float64")
        fake.data_ptr = lambda: 0  # type: ignore[method-assign]
        with pytest.raises(UnsupportedBufferError, match="names no real memory"):
            buffer_of(fake)

    def test_real_torch(self) -> None:
        torch = pytest.importorskip("torch", reason="torch is large and not needed by Trunkline")
        for dtype, name in ((torch.bfloat16, "BF16"), (torch.float8_e4m3fn, "F8_E4M3"), (torch.int64, "I64")):
            tensor = torch.zeros(4, 6, dtype=dtype)
            assert buffer_of(tensor[1:]) == Buffer(
                DRAM, tensor[1:].data_ptr(), 18 * tensor.element_size(), 0, name, (3, 6)
            )
        for bad in (torch.zeros(4, 6).T, torch.zeros(0), torch.zeros(3, device="meta"), torch.zeros(3).to_sparse()):
            with pytest.raises(UnsupportedBufferError):
                buffer_of(bad)


class TestDlpack:
    class Producer:
        def __init__(self, capsule: Any) -> None:
            self.capsule = capsule

        def __dlpack__(self, **_: Any) -> Any:
            return self.capsule

        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 1)

    def test_device_memory(self, make_capsule: Callable[..., Any]) -> None:
        source = self.Producer(make_capsule(code=4, bits=16))
        buffer = buffer_of(source)
        assert buffer == Buffer(VRAM, 0x1000, 12, 1, "BF16", (2, 3))
        assert buffer.owner == (source, source.capsule)

    def test_readonly_and_unknown_elements(self, make_capsule: Callable[..., Any]) -> None:
        buffer = buffer_of(self.Producer(make_capsule(flags=1, code=5, bits=128)))
        assert (buffer.readonly, buffer.dtype, buffer.shape) == (True, None, (2, 3, 16))

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"strides": (1, 2)}, "not C-contiguous"),
            ({"shape": (2, 0), "data": 0}, "is empty"),
            ({"data": 0}, "no real memory"),
            ({"data": 2**64 - 24}, "no real memory"),
            ({"shape": (-2, 3)}, "is empty"),
        ],
    )
    def test_refuses(self, make_capsule: Callable[..., Any], fields: dict[str, Any], message: str) -> None:
        with pytest.raises(UnsupportedBufferError, match=message):
            buffer_of(self.Producer(make_capsule(**fields)))

    def test_an_export_that_fails_is_explained(self) -> None:
        def refuse(**_: Any) -> Any:
            raise BufferError("requires a copy")

        source = SimpleNamespace(__dlpack__=refuse, __dlpack_device__=lambda: (1, 0))
        with pytest.raises(UnsupportedBufferError, match="can't be exported by DLPack: requires a copy"):
            buffer_of(source)

    def test_memory_lives_as_long_as_the_buffer(self) -> None:
        class Array(np.ndarray[Any, Any]):
            pass

        data = np.ones(4).view(Array)
        alive = weakref.ref(data)
        buffer = buffer_of(self.Producer(data.__dlpack__()))
        del data
        gc.collect()
        assert alive() is not None
        del buffer
        gc.collect()
        assert alive() is None


class TestCudaArray:
    @pytest.fixture
    def source(self) -> Any:
        return SimpleNamespace(
            __cuda_array_interface__={"version": 3, "shape": (2, 3), "typestr": "<f2", "data": (0x2000, True)}
        )

    def test_is_described_in_place(self, source: Any) -> None:
        assert buffer_of(source) == Buffer(VRAM, 0x2000, 12, 0, "F16", (2, 3), readonly=True)
        assert buffer_of(source).owner is source

    def test_an_object_may_name_its_device(self, source: Any) -> None:
        source.__dlpack_device__ = lambda: (2, 3)
        assert buffer_of(source).device == 3

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"version": 1}, "older than version 2"),
            ({"mask": object()}, "has a mask"),
            ({"strides": (2, 4)}, "not C-contiguous"),
            ({"shape": (0,)}, "is empty"),
            ({"typestr": 7.5}, "malformed"),
            ({"data": 5}, "malformed"),
            ({"data": (None, False)}, "malformed"),
            ({"version": "three"}, "malformed"),
            ({"shape": ("x",)}, "malformed"),
            ({"strides": 1}, "malformed"),
            ({"strides": (6,)}, "malformed"),
        ],
    )
    def test_refuses(self, source: Any, change: dict[str, Any], message: str) -> None:
        source.__cuda_array_interface__.update(change)
        with pytest.raises(UnsupportedBufferError, match=message):
            buffer_of(source)

    def test_explicit_strides_may_be_contiguous(self, source: Any) -> None:
        source.__cuda_array_interface__["strides"] = (6, 2)
        assert buffer_of(source).shape == (2, 3)


class TestTuple:
    def test_is_taken_as_it_is(self) -> None:
        assert buffer_of((4096, 10, 2)) == Buffer(DRAM, 4096, 10, 2, None, (10,))
        assert buffer_of((np.uint64(2**63), 10, 2, "name"), kind=VRAM) == Buffer(VRAM, 2**63, 10, 2, None, (10,))
        assert buffer_of((0, 10, 5), kind=MemoryKind.FILE).address == 0

    @pytest.mark.parametrize(
        "source",
        [
            (),
            (1, 2),
            (1, 2, 3, 4),
            (1, 2, 3, "a", "b"),
            (1.0, 2, 3),
            ("1", 2, 3),
            (-1, 2, 3),
            (1, 0, 3),
            (1, 2, -3),
            (2**64 - 1, 1, 0),
            (1, 1, 2**64),
        ],
    )
    def test_refuses(self, source: Any) -> None:
        with pytest.raises(UnsupportedBufferError):
            buffer_of(source)


def test_the_kind_asked_for_is_checked() -> None:
    assert buffer_of(b"abc", kind=DRAM).kind == DRAM
    with pytest.raises(
        UnsupportedBufferError, match="a bytes can't be registered: it lies in DRAM memory, not in VRAM"
    ):
        buffer_of(b"abc", kind=VRAM)


def test_repr_leaves_out_the_contents() -> None:
    assert "secret" not in repr(buffer_of(b"secret"))
