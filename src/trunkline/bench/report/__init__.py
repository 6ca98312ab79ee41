"""A page of one or several runs: plots, tables, the machines, in one file; no script, nothing loaded from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.bench.formats.file import write_file
from trunkline.bench.report.page import make_page

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trunkline.bench.result import Run

__all__ = ["make_page", "write_report"]


def write_report(runs: Mapping[str, Run], path: str | Path) -> None:
    """Write a page of some runs, whole or not at all.

    Args:
        runs: By the name that the page gives them; others are compared with the first.
        path: Where to; ``-`` is standard output.

    Raises:
        FileError: It can't be written; an older file is as it was.
    """
    write_file(path, make_page(runs).encode())
