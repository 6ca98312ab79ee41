"""Text of others on a terminal: nothing in it may move the cursor, change colours or reorder what is read."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trunkline.text import escape

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def escape_logs() -> Iterator[None]:
    """Print the library's warnings on standard error as texts of others, which they may quote."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_EscapingFormatter())
    logger = logging.getLogger("trunkline")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _EscapingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(escape(line) for line in super().format(record).split("\n"))
