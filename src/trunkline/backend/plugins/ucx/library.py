"""Finds and loads libucp before the native module is imported, so that the loader binds it to that copy."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
from pathlib import Path

from trunkline.errors import BackendUnavailableError

ENVIRONMENT = "TRUNKLINE_UCX_LIBRARY"
OLDEST = (1, 21)
"""Debian's 1.13.1 writes remote keys that NIXL refuses; 1.21 to 1.23 were tried."""

_INSTALL = "install it with: pip install 'trunkline[ucx]'"
_log = logging.getLogger(__name__)
_lock = threading.Lock()
_loaded: list[ctypes.CDLL] = []  # kept, so that the libraries stay


def load_native(library: str | os.PathLike[str] | None = None) -> None:
    """Load libucp and then the native module; the first call in a process decides which copy is used.

    Args:
        library: Path of ``libucp.so``; default ``$TRUNKLINE_UCX_LIBRARY``, else the ``libucx`` package.

    Raises:
        BackendUnavailableError: libucp or the native module is missing or can't be used; says what to do.
    """
    wanted = library or os.environ.get(ENVIRONMENT) or None
    with _lock:
        _refuse_second_copy(None if wanted is None else Path(wanted))
        if not _mapped():
            _load(wanted)
        try:
            from trunkline.backend.plugins.ucx import _native
        except ImportError as error:
            raise BackendUnavailableError(
                f"Trunkline's native module could not be imported ({error}); it is built when Trunkline is installed: "
                "reinstall with a C compiler and UCX's headers (pip install libucx-cu12 Cython setuptools; "
                "pip install --no-build-isolation --force-reinstall --no-deps trunkline)",
            ) from error
        version = _native.ucp_version()
        if version < OLDEST:
            raise BackendUnavailableError(
                f"UCX {'.'.join(map(str, version))} at {_mapped()[0]} is too old: "
                f"{'.'.join(map(str, OLDEST))} or later is needed to understand NIXL's peers; {_INSTALL}",
                version=version,
            )
        if not _native.let_sends_wait():
            _log.warning(
                "UCX %s at %s does not send in the way that Trunkline knows: over TCP, a peer that dies while this "
                "process answers its reads may abort this process; UCX 1.21 and 1.22 are known",
                ".".join(map(str, version)),
                _mapped()[0],
            )
        _quieten()


def library_path() -> Path | None:
    """Return the path of the libucp this process uses, or None if none is loaded."""
    mapped = _mapped()
    return mapped[0] if mapped else None


def check_alone() -> None:
    """Refuse a process that uses Trunkline's native module and has another package's copy of UCX beside it.

    Raises:
        BackendUnavailableError: It does; says which copies these are.
    """
    copies = _mapped()
    if f"{__package__}._native" in sys.modules and len(copies) > 1:
        raise BackendUnavailableError(
            f"Trunkline's UCX backend and NVIDIA's nixl have each loaded a UCX of their own into this process "
            f"({', '.join(map(str, copies))}), and two copies don't get along: use Agent and nixl_agent in different "
            "processes",
            libraries=[str(path) for path in copies],
        )


def _load(wanted: str | os.PathLike[str] | None) -> None:
    if wanted is not None:
        try:
            _loaded.append(ctypes.CDLL(os.fspath(wanted), ctypes.RTLD_LOCAL))
        except OSError as error:
            raise BackendUnavailableError(
                f"libucp can't be loaded from {os.fspath(wanted)!r} ({error}); check library= or ${ENVIRONMENT}",
                library=os.fspath(wanted),
            ) from error
        return
    try:
        import libucx
    except ImportError as error:
        raise BackendUnavailableError(
            f"the libucx package is not installed: {_INSTALL}, or name a libucp.so with ${ENVIRONMENT}",
        ) from error
    try:
        _loaded.extend(library for library in libucx.load_library() if library is not None)
    except OSError as error:
        raise BackendUnavailableError(
            f"the libucx package's libraries can't be loaded ({error}); {_INSTALL}"
        ) from error
    if not _mapped():
        raise BackendUnavailableError(f"the libucx package at {libucx.__file__} brought no libucp.so; {_INSTALL}")


def _quieten() -> None:
    """Keep UCX from printing to standard output what reaches callers as errors; ``UCX_LOG_LEVEL`` brings it back."""
    if "UCX_LOG_LEVEL" not in os.environ:
        ctypes.CDLL("libucs.so.0").ucs_global_opts_set_value(b"LOG_LEVEL", b"fatal")


def _refuse_second_copy(wanted: Path | None) -> None:
    """Two copies of UCX in one process share sockets, signals and memory hooks, and crash."""
    for path in _mapped():
        if path.name.startswith("libucp-"):  # a name with a hash: a copy that another wheel brought for itself
            raise BackendUnavailableError(
                f"another package has already loaded its own UCX into this process ({path}), and two copies don't "
                "get along: use NVIDIA's nixl and Trunkline's UCX backend in different processes, or NVIDIA's alone "
                "with trunkline.nixl.adapt",
                library=str(path),
            )
        if wanted is not None and path != wanted.resolve():
            raise BackendUnavailableError(
                f"this process already uses the UCX at {path}; {wanted} can only be chosen by a process's first agent",
                library=str(path),
            )


def _mapped() -> list[Path]:
    """Return the libucp files that are mapped into this process."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    names = dict.fromkeys(line.split(maxsplit=5)[5] for line in maps if "/libucp" in line)
    return [Path(name) for name in names if Path(name).name.startswith(("libucp.so", "libucp-"))]
