"""cuFile's calls, structures and error names, as its public header (cufile.h 1.14) has them. No policy."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.errors import BackendError

if TYPE_CHECKING:
    from numpy.typing import NDArray

READ, WRITE = 0, 1
"""CUfileOpcode_t."""

WAITING, PENDING, INVALID, CANCELED, COMPLETE, TIMEOUT, FAILED = (1 << bit for bit in range(7))
"""CUfileStatus_t of one entry of a batch."""

STATUS_NAMES = {INVALID: "CUFILE_INVALID", CANCELED: "CUFILE_CANCELED", TIMEOUT: "CUFILE_TIMEOUT"}

INVALID_MAPPING_SIZE, MEMORY_ALREADY_REGISTERED, DRIVER_ALREADY_OPEN, PINNING_FAILED = 5016, 5023, 5026, 5036

ERROR_NAMES = {
    5001: "CU_FILE_DRIVER_NOT_INITIALIZED",
    5002: "CU_FILE_DRIVER_INVALID_PROPS",
    5003: "CU_FILE_DRIVER_UNSUPPORTED_LIMIT",
    5004: "CU_FILE_DRIVER_VERSION_MISMATCH",
    5005: "CU_FILE_DRIVER_VERSION_READ_ERROR",
    5006: "CU_FILE_DRIVER_CLOSING",
    5007: "CU_FILE_PLATFORM_NOT_SUPPORTED",
    5008: "CU_FILE_IO_NOT_SUPPORTED",
    5009: "CU_FILE_DEVICE_NOT_SUPPORTED",
    5010: "CU_FILE_NVFS_DRIVER_ERROR",
    5011: "CU_FILE_CUDA_DRIVER_ERROR",
    5012: "CU_FILE_CUDA_POINTER_INVALID",
    5013: "CU_FILE_CUDA_MEMORY_TYPE_INVALID",
    5014: "CU_FILE_CUDA_POINTER_RANGE_ERROR",
    5015: "CU_FILE_CUDA_CONTEXT_MISMATCH",
    INVALID_MAPPING_SIZE: "CU_FILE_INVALID_MAPPING_SIZE",
    5017: "CU_FILE_INVALID_MAPPING_RANGE",
    5018: "CU_FILE_INVALID_FILE_TYPE",
    5019: "CU_FILE_INVALID_FILE_OPEN_FLAG",
    5020: "CU_FILE_DIO_NOT_SET",
    5022: "CU_FILE_INVALID_VALUE",
    MEMORY_ALREADY_REGISTERED: "CU_FILE_MEMORY_ALREADY_REGISTERED",
    5024: "CU_FILE_MEMORY_NOT_REGISTERED",
    5025: "CU_FILE_PERMISSION_DENIED",
    DRIVER_ALREADY_OPEN: "CU_FILE_DRIVER_ALREADY_OPEN",
    5027: "CU_FILE_HANDLE_NOT_REGISTERED",
    5028: "CU_FILE_HANDLE_ALREADY_REGISTERED",
    5029: "CU_FILE_DEVICE_NOT_FOUND",
    5030: "CU_FILE_INTERNAL_ERROR",
    5031: "CU_FILE_GETNEWFD_FAILED",
    5033: "CU_FILE_NVFS_SETUP_ERROR",
    5034: "CU_FILE_IO_DISABLED",
    5035: "CU_FILE_BATCH_SUBMIT_FAILED",
    PINNING_FAILED: "CU_FILE_GPU_MEMORY_PINNING_FAILED",
    5037: "CU_FILE_BATCH_FULL",
    5038: "CU_FILE_ASYNC_NOT_SUPPORTED",
    5039: "CU_FILE_IO_MAX_ERROR",
}

IO_PARAMS = np.dtype(
    [
        ("mode", np.int32),
        ("base", np.uint64),
        ("file_offset", np.int64),
        ("base_offset", np.int64),
        ("size", np.uint64),
        ("handle", np.uint64),
        ("opcode", np.int32),
        ("cookie", np.uint64),
    ],
    align=True,
)
"""CUfileIOParams_t."""

IO_EVENTS = np.dtype([("cookie", np.uint64), ("status", np.int32), ("moved", np.int64)], align=True)
"""CUfileIOEvents_t; ``ret`` holds a negative error or the bytes moved."""


class Error(ctypes.Structure):
    """CUfileError_t."""

    _fields_ = (("err", ctypes.c_int), ("cu_err", ctypes.c_int))


class _Handle(ctypes.Union):
    _fields_ = (("fd", ctypes.c_int), ("handle", ctypes.c_void_p))


class Descr(ctypes.Structure):
    """CUfileDescr_t."""

    _fields_ = (("type", ctypes.c_int), ("handle", _Handle), ("fs_ops", ctypes.c_void_p))


class Timespec(ctypes.Structure):
    """How long a call may wait."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class CuFileError(BackendError):
    """A call of cuFile failed.

    Attributes:
        code: Its CUfileOpError.
    """

    def __init__(self, call: str, code: int, cuda_error: int = 0) -> None:
        cuda = f", CUDA error {cuda_error}" if cuda_error else ""
        super().__init__(f"{call} returned {explain(code)}{cuda}", call=call, code=code, cuda_error=cuda_error)
        self.code = code


def explain(code: int) -> str:
    """Return the name of a CUfileOpError, or of an errno below their range."""
    number = abs(code)
    if number >= 5000:
        return f"{ERROR_NAMES.get(number, 'an unknown CUfileOpError')} ({number})"
    return f"{errno.errorcode.get(number, f'errno {number}')} ({os.strerror(number)})"


_OPAQUE_FD = 1
_POINTER, _SIZE, _OFFSET = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
_CALLS: dict[str, tuple[Any, ...]] = {
    "cuFileDriverOpen": (Error,),
    "cuFileHandleRegister": (Error, ctypes.POINTER(_POINTER), ctypes.POINTER(Descr)),
    "cuFileHandleDeregister": (None, _POINTER),
    "cuFileBufRegister": (Error, _POINTER, _SIZE, ctypes.c_int),
    "cuFileBufDeregister": (Error, _POINTER),
    "cuFileRead": (ctypes.c_ssize_t, _POINTER, _POINTER, _SIZE, _OFFSET, _OFFSET),
    "cuFileWrite": (ctypes.c_ssize_t, _POINTER, _POINTER, _SIZE, _OFFSET, _OFFSET),
    "cuFileBatchIOSetUp": (Error, ctypes.POINTER(_POINTER), ctypes.c_uint),
    "cuFileBatchIOSubmit": (Error, _POINTER, ctypes.c_uint, _POINTER, ctypes.c_uint),
    "cuFileBatchIOGetStatus": (
        Error, _POINTER, ctypes.c_uint, ctypes.POINTER(ctypes.c_uint), _POINTER, ctypes.POINTER(Timespec),
    ),
    "cuFileBatchIOCancel": (Error, _POINTER),
    "cuFileBatchIODestroy": (None, _POINTER),
}  # fmt: skip


class CuFile:
    """The calls of one libcufile. They release the interpreter's lock, and may be made by any thread.

    Args:
        library: The loaded library.

    Raises:
        AttributeError: It lacks one of the calls.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, (result, *arguments) in _CALLS.items():
            call = getattr(library, name)
            call.restype, call.argtypes = result, arguments
        # The header renames it to the second version; libraries before 1.4 have the first alone.
        self._close = getattr(library, "cuFileDriverClose_v2", None) or library.cuFileDriverClose
        self._close.restype, self._close.argtypes = Error, []
        self._library = library

    def open_driver(self) -> None:
        _check("cuFileDriverOpen", self._library.cuFileDriverOpen())

    def close_driver(self) -> None:
        _check("cuFileDriverClose", self._close())

    def register_file(self, descriptor: int) -> int:
        """Return the handle of an open file."""
        handle = _POINTER()
        descr = Descr(type=_OPAQUE_FD)
        descr.handle.fd = descriptor
        error = self._library.cuFileHandleRegister(ctypes.byref(handle), ctypes.byref(descr))
        _check("cuFileHandleRegister", error)
        return handle.value or 0

    def deregister_file(self, handle: int) -> None:
        self._library.cuFileHandleDeregister(handle)

    def register_buffer(self, address: int, length: int) -> None:
        _check("cuFileBufRegister", self._library.cuFileBufRegister(address, length, 0))

    def deregister_buffer(self, address: int) -> None:
        _check("cuFileBufDeregister", self._library.cuFileBufDeregister(address))

    def move(self, opcode: int, handle: int, base: int, size: int, file_offset: int, base_offset: int) -> int:
        """Call cuFileRead or cuFileWrite; return the bytes moved, or an error's number, negative."""
        call = self._library.cuFileRead if opcode == READ else self._library.cuFileWrite
        moved: int = call(handle, base, size, file_offset, base_offset)
        return -(ctypes.get_errno() or errno.EIO) if moved == -1 else moved

    def set_up_batch(self, limit: int) -> int:
        """Return the handle of a batch of up to ``limit`` entries."""
        handle = _POINTER()
        _check("cuFileBatchIOSetUp", self._library.cuFileBatchIOSetUp(ctypes.byref(handle), limit))
        return handle.value or 0

    def submit_batch(self, batch: int, params: NDArray[Any]) -> None:
        """Start the entries (IO_PARAMS), which must stay where they are until they have ended."""
        error = self._library.cuFileBatchIOSubmit(batch, len(params), params.ctypes.data, 0)
        _check("cuFileBatchIOSubmit", error)

    def batch_events(self, batch: int, least: int, events: NDArray[Any], timeout: float) -> NDArray[Any]:
        """Wait for ``least`` events, or until the timeout; return those that came, in ``events`` (IO_EVENTS)."""
        count = ctypes.c_uint(len(events))
        patience = Timespec(int(timeout), int(timeout % 1 * 1e9))
        error = self._library.cuFileBatchIOGetStatus(
            batch, least, ctypes.byref(count), events.ctypes.data, ctypes.byref(patience)
        )
        _check("cuFileBatchIOGetStatus", error)
        return events[: count.value]

    def cancel_batch(self, batch: int) -> None:
        _check("cuFileBatchIOCancel", self._library.cuFileBatchIOCancel(batch))

    def destroy_batch(self, batch: int) -> None:
        self._library.cuFileBatchIODestroy(batch)


def _check(call: str, error: Error) -> None:
    if error.err:
        raise CuFileError(call, error.err, error.cu_err)
