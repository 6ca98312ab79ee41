"""The CUDA driver as far as cuFile needs it: it must be there, have a GPU, and a context must be current."""

from __future__ import annotations

import ctypes
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trunkline.errors import BackendError, BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARY = "libcuda.so.1"
"""The driver's library; cuFile loads it by this name, too."""

NO_DEVICE = -1
"""Device of memory for which no context is needed."""

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int
_CALLS: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGet": (ctypes.POINTER(_INT), _INT),
    "cuDevicePrimaryCtxRetain": (ctypes.POINTER(_POINTER), _INT),
    "cuDevicePrimaryCtxRelease_v2": (_INT,),
    "cuCtxPushCurrent_v2": (_POINTER,),
    "cuCtxPopCurrent_v2": (ctypes.POINTER(_POINTER),),
    "cuGetErrorName": (_INT, ctypes.POINTER(ctypes.c_char_p)),
}


class Cuda:
    """The devices' primary contexts, which the CUDA runtime and torch use, each retained from its first use on.

    Raises:
        BackendUnavailableError: There is no CUDA driver, or no GPU.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise BackendUnavailableError(
                f"the CUDA driver's library is missing ({error}): GPUDirect Storage needs NVIDIA's driver, and in a "
                "container its libraries (NVIDIA Container Toolkit)",
                missing=LIBRARY,
            ) from error
        for name, arguments in _CALLS.items():
            call = getattr(self._library, name, None)
            if call is None:
                raise BackendUnavailableError(f"{LIBRARY} lacks {name}: NVIDIA's driver is too old", missing=name)
            call.restype, call.argtypes = _INT, list(arguments)
        self._lock = threading.Lock()
        self._contexts: dict[int, tuple[int, int]] = {}
        status = self._library.cuInit(0)
        if status:
            raise BackendUnavailableError(
                f"the CUDA driver can't be used: cuInit returned {self._name(status)}; is there a GPU, and may this "
                "process use it?",
                missing="GPU",
                cuda_error=status,
            )

    @contextmanager
    def current(self, device: int) -> Iterator[None]:
        """Make a device's primary context the calling thread's; for NO_DEVICE nothing is done.

        Raises:
            BackendError: There is no such device, or it has no context for us.
        """
        if device == NO_DEVICE:
            yield
            return
        self._check("cuCtxPushCurrent", device, self._library.cuCtxPushCurrent_v2(self._context(device)))
        try:
            yield
        finally:
            self._library.cuCtxPopCurrent_v2(ctypes.byref(_POINTER()))

    def _context(self, device: int) -> int:
        with self._lock:
            if device not in self._contexts:
                number, context = _INT(), _POINTER()
                self._check("cuDeviceGet", device, self._library.cuDeviceGet(ctypes.byref(number), device))
                status = self._library.cuDevicePrimaryCtxRetain(ctypes.byref(context), number)
                self._check("cuDevicePrimaryCtxRetain", device, status)
                self._contexts[device] = (number.value, context.value or 0)
            return self._contexts[device][1]

    def close(self) -> None:
        """Release the contexts."""
        with self._lock:
            for number, _ in self._contexts.values():
                self._library.cuDevicePrimaryCtxRelease_v2(number)
            self._contexts.clear()

    def _check(self, call: str, device: int, status: int) -> None:
        if status:
            raise BackendError(f"{call} for GPU {device} returned {self._name(status)}", device=device, call=call)

    def _name(self, status: int) -> str:
        name = ctypes.c_char_p()
        self._library.cuGetErrorName(status, ctypes.byref(name))
        return f"{(name.value or b'an unknown CUDA error').decode()} ({status})"
