"""Files of results: read within bounds, written whole or not at all."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trunkline.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_BYTES = 256 << 20
"""Larger files are not read: a row takes about 1 KiB of JSON."""


def read_file(path: str | Path) -> bytes:
    """Return what a file holds, or what comes from standard input for ``-``.

    Raises:
        FileError: It can't be read, or is larger than ``MOST_BYTES``.
    """
    with _mapped_errors("reading", path):
        if str(path) == "-":
            data = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise FileError(f"{path} is larger than {MOST_BYTES >> 20} MiB: it is not read as results", path=str(path))
    return data


def write_file(path: str | Path, data: bytes) -> None:
    """Write a file beside its place and give it its name when it is safely there; ``-`` is standard output.

    A symbolic link stays one; what is not a file (a pipe, a device) is written to as it is.

    Raises:
        FileError: It can't be written; an older file is as it was.
    """
    with _mapped_errors("writing", path):
        if str(path) == "-":
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        place = Path(os.path.realpath(path))
        if place.exists() and not place.is_file():
            with place.open("wb") as file:
                file.write(data)
            return
        part = place.with_name(f".{place.name[:200]}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(place)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def _mapped_errors(verb: str, path: str | Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        kept = "" if verb == "reading" else "; a file that was there is as it was. Free space or name another place"
        raise FileError(f"{verb} {path} failed: {error.strerror or error}{kept}", path=str(path)) from error
