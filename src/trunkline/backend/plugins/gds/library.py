"""Finds and opens libcufile at run time, and says exactly what is missing where it can't be used."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from trunkline.backend.plugins.gds.cuda import Cuda
from trunkline.backend.plugins.gds.cufile import DRIVER_ALREADY_OPEN, CuFile, CuFileError
from trunkline.errors import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENT = "TRUNKLINE_CUFILE_LIBRARY"

KERNEL_MODULE = Path("/proc/driver/nvidia-fs")
"""There if the kernel module is loaded that cuFile's direct path goes through."""

SYSTEM_NAMES = ("libcufile.so.0", "libcufile.so")

_INSTALL = f"install it with: pip install 'trunkline[gds]', or name a libcufile.so with library= or ${ENVIRONMENT}"
_log = logging.getLogger(__name__)
_lock = threading.Lock()
_open: dict[str, Library] = {}


class Library:
    """An open cuFile driver, shared by this process's backends of the same libcufile; each calls ``close`` once.

    Attributes:
        path: What the library was loaded as.
        cufile: Its calls.
        cuda: The CUDA driver.
        users: How many have it open.
        process: The process that opened it.
    """

    def __init__(self, path: str, cufile: CuFile, cuda: Cuda) -> None:
        self.path = path
        self.cufile = cufile
        self.cuda = cuda
        self.users = 1
        self.process = os.getpid()
        self._is_ours = True
        try:
            cufile.open_driver()
        except CuFileError as error:
            if error.code != DRIVER_ALREADY_OPEN:
                cuda.close()
                raise BackendUnavailableError(
                    f"cuFile ({path}) can't be used: {error}{_hint()}", library=path, code=error.code
                ) from error
            self._is_ours = False  # another package opened it, and will close it

    def close(self) -> None:
        """Give it back; the last user closes the driver."""
        with _lock:
            self.users -= 1
            if self.users:
                return
            del _open[self.path]
            if self._is_ours:
                try:
                    self.cufile.close_driver()
                except CuFileError as error:  # what is left of it ends with the process
                    _log.warning("cuFile (%s): %s", self.path, error)
            self.cuda.close()

    @classmethod
    def open(cls, wanted: str | os.PathLike[str] | None = None) -> Library:
        """Load libcufile and open its driver, or share what is open.

        Args:
            wanted: Path of ``libcufile.so``; default ``$TRUNKLINE_CUFILE_LIBRARY``, else NVIDIA's wheel, else the
                system's.

        Raises:
            BackendUnavailableError: The library, the CUDA driver, a GPU or the kernel module is missing; or the process
                was forked from one that had it open.
        """
        with _lock:
            path, loaded = _load(os.fspath(wanted) if wanted else os.environ.get(ENVIRONMENT))
            shared = _open.get(path)
            if shared is not None:
                if shared.process != os.getpid():
                    raise BackendUnavailableError(
                        f"cuFile ({path}) was opened before this process was forked, and can't be used after that: "
                        "start this process by spawn",
                        library=path,
                    )
                shared.users += 1
                return shared
            try:
                cufile = CuFile(loaded)
            except AttributeError as error:
                raise BackendUnavailableError(
                    f"{path} is no libcufile with a batch API ({error}): use that of CUDA 12", library=path
                ) from error
            # Before the driver is opened: without CUDA, cuFile prints to the terminal and leaves a log file.
            library = _open[path] = cls(path, cufile, Cuda())
            return library


def _load(wanted: str | None) -> tuple[str, ctypes.CDLL]:
    tried = []
    for path in [wanted] if wanted else _candidates():
        try:
            return path, ctypes.CDLL(path, use_errno=True)
        except OSError as error:
            tried.append(f"{path} ({error})")
    if wanted:
        message = f"libcufile can't be loaded: {tried[0]}; check library= or ${ENVIRONMENT}"
    else:
        message = f"libcufile is missing; tried {', '.join(tried)}; {_INSTALL}"
    raise BackendUnavailableError(message, missing="libcufile")


def _candidates() -> Iterator[str]:
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        for folder in ("cufile", "cu13"):
            path = Path(root, folder, "lib", SYSTEM_NAMES[0])
            if path.exists():
                yield str(path)
    yield from SYSTEM_NAMES


def _hint() -> str:
    if KERNEL_MODULE.exists():
        return ""
    return (
        f"; the kernel module nvidia-fs is not loaded ({KERNEL_MODULE} is missing): load it (modprobe nvidia-fs), or "
        'allow cuFile to do without ("allow_compat_mode": true in the cufile.json that $CUFILE_ENV_PATH_JSON names, '
        "by default /etc/cufile.json)"
    )
