"""Tables: for a terminal folded to its width, else plain text as wide as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.text import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

_GAP = "  "


def make_console() -> Console:
    """Return a console on standard output that takes nothing in a text for markup."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as plain text: columns aligned, nothing cut, no blanks at the ends of lines."""
    from rich.cells import cell_len

    lines = [header, *[[escape(cell) for cell in row] for row in rows]]
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        _GAP.join(cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def rich_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    """Return a table for a terminal: cells that don't fit are folded, not cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in header:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(escape(cell)) for cell in row))
    return table


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output."""
    console = make_console()
    if console.is_terminal:
        console.print(rich_table(header, rows), soft_wrap=False)
    else:
        console.print(format_table(header, rows))


def duration(seconds: float | None) -> str:
    """Return a time in its two largest units: ``3d4h``, ``12m5s``, ``7s``; ``-`` for none."""
    if seconds is None:
        return "-"
    left = int(seconds)
    words: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not words):
            words.append(f"{count}{unit}")
    return "".join(words[:2])


def size(count: int) -> str:
    """Return bytes in binary units: ``512 B``, ``1.5 MiB``."""
    from rich.filesize import pick_unit_and_suffix

    unit, suffix = pick_unit_and_suffix(count, ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 1024)
    return f"{count} B" if unit == 1 else f"{count / unit:.1f} {suffix}"


def pairs(attributes: dict[str, str]) -> str:
    """Return attributes as ``key=value``; ``-`` for none."""
    return ",".join(f"{key}={value}" for key, value in attributes.items()) or "-"
