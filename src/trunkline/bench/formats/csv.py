"""CSV: a line of names, then one line for each row: its settings first, then what was measured."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from trunkline.bench.result import SETTINGS, Row

if TYPE_CHECKING:
    from trunkline.bench.result import Run

COLUMNS = (*SETTINGS, *(name for name in Row.__struct_fields__ if name not in SETTINGS))


def encode_csv(run: Run) -> bytes:
    """Return the run's rows as CSV in UTF-8; what was not measured is empty, truths are ``true`` and ``false``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_word(getattr(row, name)) for name in COLUMNS] for row in run.rows)
    return text.getvalue().encode()


def _word(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value
