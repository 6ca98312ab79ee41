"""Results of the benchmark as files: CSV and JSON to write, JSON and NIXLBench's text to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from trunkline.bench.formats.csv import encode_csv
from trunkline.bench.formats.file import read_file, write_file
from trunkline.bench.formats.json import decode_json, encode_json

if TYPE_CHECKING:
    from pathlib import Path

    from trunkline.bench.result import Run

__all__ = ["Format", "read", "write"]

Format = Literal["csv", "json"]


def write(run: Run, path: str | Path, kind: Format) -> None:
    """Write a run to a file, whole or not at all.

    Args:
        run: What was measured.
        path: Where to; ``-`` is standard output. What is there is replaced once the new file is safely written.
        kind: ``csv``: one line for each row; ``json``: the whole run.

    Raises:
        FileError: It can't be written (the disk is full, for one); an older file is as it was.
    """
    write_file(path, encode_csv(run) if kind == "csv" else encode_json(run))


def read(path: str | Path) -> Run:
    """Read a run that was written as JSON.

    Args:
        path: The file; ``-`` is standard input.

    Raises:
        FileError: It can't be read, or is larger than results are.
        ResultError: It is not JSON, or not a run of a known format; says where.
    """
    return decode_json(read_file(path), str(path))
