"""Everything that arrives as bytes: by format, valid inputs and what reads them.

Each reader returns or raises one of the errors its format names; anything else is a bug. Where there is one way to
write a value, what was accepted must be written as it was read.
"""

from __future__ import annotations

from tests.fuzz.formats import backend, exchange, metadata, store

TARGETS = metadata.TARGETS | store.TARGETS | exchange.TARGETS | backend.TARGETS
