"""Where the bytes of an object lie: arrays, tensors and bytes-like objects, never copied.

torch, CuPy and others are never imported: their objects are known by what they offer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from trunkline.errors import UnsupportedBufferError
from trunkline.memory import cuda, dlpack
from trunkline.memory.dtype import DTYPES, NAME_OF_ALIAS
from trunkline.memory.file import File, StoredObject
from trunkline.memory.kind import MemoryKind

_TORCH_KINDS = {"cpu": MemoryKind.DRAM, "cuda": MemoryKind.VRAM}  # torch calls ROCm's devices cuda, too
_TORCH_METHODS = ("data_ptr", "element_size", "is_contiguous")
_SOURCES = (
    "numpy arrays, torch tensors, objects with __dlpack__ or __cuda_array_interface__, bytes-like objects "
    "and (address, length, device)"
)


@dataclass(frozen=True, slots=True)
class Buffer:
    """Contiguous memory of some object. Holding it keeps the memory alive and in place.

    Attributes:
        kind: Kind of memory.
        address: Address of the first byte (an offset for FILE and BLOCK).
        nbytes: Size; never 0.
        device: Device number (file or device id for FILE and BLOCK, object id for OBJECT).
        dtype: safetensors' name of the element type, or None for bytes without a type.
        shape: Elements along each axis. Where ``dtype`` is None because safetensors knows no such elements, a last
            axis counts the bytes of one element.
        readonly: Whether it may only be read, by this process and by peers.
        name: A file's path or an object's key; empty for memory.
        owner: What keeps the memory alive; None for a bare address, which its caller keeps alive.
    """

    kind: MemoryKind
    address: int
    nbytes: int
    device: int
    dtype: str | None
    shape: tuple[int, ...]
    readonly: bool = False
    name: str = ""
    owner: Any = field(default=None, repr=False, compare=False)


def buffer_of(source: Any, *, kind: MemoryKind | None = None) -> Buffer:
    """Find the memory of an object.

    Args:
        source: A C-contiguous numpy array, torch tensor or other array with ``__dlpack__`` or
            ``__cuda_array_interface__`` (which names no device: ``__dlpack_device__`` does, else CUDA's driver;
            where neither knows, it is the first GPU); a bytes-like object (bytes, bytearray, memoryview, mmap,
            array.array, ctypes); a tuple (address, length, device), as in NIXL also with a text behind it, which is
            ignored; a File, a StoredObject; or a Buffer, as :func:`trunkline.memory.typed.typed` makes.
        kind: Kind of memory: needed for a tuple that is not DRAM; otherwise the object's own kind is checked.

    Raises:
        UnsupportedBufferError: No memory, or memory that can't be used as it is: strided, empty, of Python objects,
            a temporary copy, on an unsupported device, or not of the ``kind`` asked for.
    """
    if isinstance(source, tuple):
        return _of_tuple(source, MemoryKind.DRAM if kind is None else kind)
    if isinstance(source, Buffer):
        buffer = source
    elif isinstance(source, File):
        shape, path, owner = (source.size,), str(source.path), source.descriptor
        buffer = Buffer(MemoryKind.FILE, 0, source.size, owner.number, None, shape, source.readonly, path, owner=owner)
    elif isinstance(source, StoredObject):
        shape = (source.size,)
        buffer = Buffer(MemoryKind.OBJECT, 0, source.size, source.number, None, shape, name=source.key, owner=source)
    elif isinstance(source, np.ndarray):
        buffer = _of_numpy(source)
    elif all(hasattr(source, name) for name in _TORCH_METHODS):
        buffer = _of_torch(source)
    elif hasattr(source, "__dlpack__") and hasattr(source, "__dlpack_device__"):
        buffer = _of_dlpack(source)
    elif hasattr(source, "__cuda_array_interface__"):
        buffer = _of_cuda_array(source)
    else:
        buffer = _of_bytes(source)
    if kind is not None and kind != buffer.kind:
        raise _unsupported(source, f"lies in {buffer.kind.name} memory, not in {kind.name}")
    return buffer


def _of_tuple(source: tuple[Any, ...], kind: MemoryKind) -> Buffer:
    numbers = source[:3]
    is_known = len(source) == 3 or (len(source) == 4 and isinstance(source[3], str | bytes))
    if not is_known or not all(isinstance(number, int | np.integer) for number in numbers):
        raise UnsupportedBufferError(f"a tuple stands for (address, length, device), three integers; got {source!r}")
    address, length, device = (int(number) for number in numbers)
    if address < 0 or length <= 0 or device < 0 or address + length >= 2**64 or device >= 2**64:
        raise UnsupportedBufferError(f"(address, length, device) = {(address, length, device)} is no range of memory")
    return Buffer(kind, address, length, device, None, (length,))


def _of_numpy(source: np.ndarray[Any, Any]) -> Buffer:
    if source.dtype.hasobject or source.dtype.fields is not None:
        raise _unsupported(source, f"has elements of dtype {source.dtype}; use plain numbers, or .view('uint8')")
    return _buffer(
        source,
        kind=MemoryKind.DRAM,
        address=source.ctypes.data,
        device=0,
        dtype=NAME_OF_ALIAS.get(source.dtype.name) if source.dtype.isnative else None,
        item_size=source.dtype.itemsize,
        shape=source.shape,
        is_contiguous=source.flags.c_contiguous,
        readonly=not source.flags.writeable,
        owner=source,
    )


def _of_torch(source: Any) -> Buffer:
    device = source.device
    if device.type not in _TORCH_KINDS:
        raise _unsupported(source, f"lies on device {device}; {' and '.join(_TORCH_KINDS)} are supported")
    for trait, remedy in (("is_conj", "resolve_conj()"), ("is_neg", "resolve_neg()")):
        if getattr(source, trait, bool)():
            raise _unsupported(source, f"is a lazy view whose memory holds other values; use .{remedy}")
    try:
        return _buffer(
            source,
            kind=_TORCH_KINDS[device.type],
            address=source.data_ptr(),
            device=device.index or 0,
            dtype=NAME_OF_ALIAS.get(str(source.dtype).removeprefix("torch.")),
            item_size=source.element_size(),
            shape=tuple(source.shape),
            is_contiguous=source.is_contiguous(),
            readonly=False,
            owner=source,
        )
    except (RuntimeError, NotImplementedError) as error:  # sparse, fake and other tensors without storage
        raise _unsupported(source, f"has no plain storage: {error}") from error


def _of_dlpack(source: Any) -> Buffer:
    try:
        capsule = dlpack.export(source)
    except (BufferError, RuntimeError, ValueError) as error:
        raise _unsupported(source, f"can't be exported by DLPack: {error}") from error
    found = dlpack.read(capsule)
    return _buffer(
        source,
        kind=found.kind,
        address=found.address,
        device=found.device,
        dtype=found.dtype,
        item_size=found.item_size,
        shape=found.shape,
        is_contiguous=found.is_contiguous,
        readonly=found.readonly,
        owner=(source, capsule),
    )


def _of_cuda_array(source: Any) -> Buffer:
    """Read version 2 or 3 of Numba's CUDA array interface."""
    found = source.__cuda_array_interface__
    try:
        version, shape, element = int(found["version"]), tuple(map(int, found["shape"])), np.dtype(found["typestr"])
        address, readonly = int(found["data"][0]), bool(found["data"][1])
        strides = found.get("strides")
        is_contiguous = strides is None or dlpack.is_contiguous(shape, tuple(strides), element.itemsize)
        is_masked = found.get("mask") is not None
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _unsupported(source, f"has a malformed __cuda_array_interface__: {error!r}") from error
    if version < 2 or is_masked:
        raise _unsupported(source, "has a mask, or a CUDA array interface older than version 2")
    return _buffer(
        source,
        kind=MemoryKind.VRAM,
        address=address,
        device=source.__dlpack_device__()[1] if hasattr(source, "__dlpack_device__") else cuda.device_of(address) or 0,
        dtype=NAME_OF_ALIAS.get(element.name) if element.isnative else None,
        item_size=element.itemsize,
        shape=shape,
        is_contiguous=is_contiguous,
        readonly=readonly,
        owner=source,
    )


def _of_bytes(source: Any) -> Buffer:
    if isinstance(source, np.generic):
        raise _unsupported(source, "is a numpy scalar, a copy of an array's element; register the array")
    try:
        view = memoryview(source)
    except (TypeError, ValueError, BufferError) as error:
        raise _unsupported(source, f"offers no memory: use {_SOURCES}") from error
    is_usable = view.c_contiguous and view.nbytes > 0
    # The numpy array holds the view open, so that a bytearray can't be resized, nor an mmap closed.
    array = np.frombuffer(view, np.uint8) if is_usable else None
    return _buffer(
        source,
        kind=MemoryKind.DRAM,
        address=0 if array is None else array.ctypes.data,
        device=0,
        dtype=_name_of_format(view.format, view.itemsize),
        item_size=view.itemsize,
        shape=tuple(view.shape or ()),
        is_contiguous=view.c_contiguous,
        readonly=view.readonly,
        owner=(source, array),
    )


def _name_of_format(text: str, item_size: int) -> str | None:
    """Return safetensors' name for a struct module's format of one number in native byte order, or None."""
    code = text.lstrip("@=" + ("<" if np.little_endian else ">"))
    if len(code) != 1:
        return None
    if code == "?":
        return "BOOL"
    letter = next((letter for letter, codes in _FORMATS.items() if code in codes), None)
    name = f"{letter}{8 * item_size}"
    return name if name in DTYPES else None


_FORMATS = {"I": "bhilqn", "U": "BHILQN", "F": "efd"}


def _buffer(
    source: Any,
    *,
    kind: MemoryKind,
    address: int,
    device: int,
    dtype: str | None,
    item_size: int,
    shape: tuple[int, ...],
    is_contiguous: bool,
    readonly: bool,
    owner: Any,
) -> Buffer:
    nbytes = prod(shape) * item_size
    if nbytes <= 0:
        raise _unsupported(source, f"is empty (shape {shape}): there is nothing to register")
    if not is_contiguous:
        raise _unsupported(
            source,
            "is not C-contiguous; register the whole array and index what register() returns, "
            "or register a contiguous copy that you keep using",
        )
    if address <= 0 or address + nbytes >= 2**64:
        raise _unsupported(source, f"names no real memory (address {address}, {nbytes} bytes)")
    if dtype is None:
        shape = (*shape, item_size)
    return Buffer(kind, address, nbytes, device, dtype, shape, readonly, owner=owner)


def _unsupported(source: Any, reason: str) -> UnsupportedBufferError:
    name = type(source).__qualname__
    return UnsupportedBufferError(f"a {name} can't be registered: it {reason}", type=name)
