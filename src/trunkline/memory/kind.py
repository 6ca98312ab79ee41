"""Kinds of memory, numbered as on NIXL's wire."""

from __future__ import annotations

from enum import IntEnum


class MemoryKind(IntEnum):
    """Where memory lies. The values are NIXL's memory types (metadata field ``t``)."""

    DRAM = 0
    VRAM = 1
    BLOCK = 2
    OBJECT = 3
    FILE = 4

    # Enum's own is a Python function that hashes the name; kinds are looked up in every plan, some times.
    __hash__ = int.__hash__
