"""Text of others on a terminal: nothing in it may move the cursor, change colours or reorder what is read."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def escape(text: str) -> str:
    r"""Return the text as one line that a terminal shows as it is; what is not printable becomes ``\x1b``, ``\u202e``.

    Control characters, line separators, marks that change the direction of writing and what is no Unicode are not
    printable. Rich's markup is: give what this returns to ``rich.text.Text``, or print it without rich.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


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
