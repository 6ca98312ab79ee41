"""The words of ``script.lua``: how keys, leases, entries and changes are written there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from trunkline.store.contract import (
    Changed,
    Condition,
    Delete,
    Entry,
    Get,
    KeyHasLease,
    KeyIsAbsent,
    Operation,
    Put,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEADER = re.compile(rb"(\d+) (\d+) ([0-9a-f]+)\n")
_PART = re.compile(rb"([+-])(\d+) (\d+)\n")

Word = bytes | str | int


def encode_key(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def decode_key(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def encode_lease(lease: int) -> str:
    return f"{lease:016x}"


def key_range(key: str, *, prefix: bool) -> tuple[bytes, bytes]:
    """Return a range in the script's words."""
    start = encode_key(key)
    if not prefix:
        return start, b""
    stem = start.rstrip(b"\xff")
    return (b"[" + start if start else b"-"), (b"(" + stem[:-1] + bytes([stem[-1] + 1]) if stem else b"+")


def encode_transaction(conditions: tuple[Condition, ...], *branches: tuple[Operation, ...]) -> list[Word]:
    words: list[Word] = [len(conditions)]
    for condition in conditions:
        words += _condition(condition)
    for branch in branches:
        words.append(len(branch))
        for operation in branch:
            words += _operation(operation)
    return words


def decode_entries(found: list[bytes]) -> tuple[Entry, ...]:
    """Read keys and entries, alternating."""
    return tuple(_entry(key, packed) for key, packed in zip(found[::2], found[1::2], strict=True))


def decode_change(parts: bytes, revision: int) -> Changed:
    """Read the parts of one change.

    Raises:
        ValueError: They are not of the form that the script writes.
    """
    put, deleted = [], []
    for sign, key, packed in _split(parts):
        if sign == b"+":
            put.append(_entry(key, packed))
        else:
            deleted.append(decode_key(key))
    return Changed(tuple(put), tuple(deleted), revision)


def _split(parts: bytes) -> Iterable[tuple[bytes, bytes, bytes]]:
    at = 0
    while at < len(parts):
        head = _PART.match(parts, at)
        if head is None:
            raise ValueError(f"no part of a change at byte {at}")
        middle = head.end() + int(head[2])
        at = middle + int(head[3])
        yield head[1], parts[head.end() : middle], parts[middle:at]


def _entry(key: bytes, packed: bytes) -> Entry:
    head = _HEADER.match(packed)
    if head is None:
        raise ValueError(f"no entry of Trunkline under {key!r}")
    return Entry(decode_key(key), packed[head.end() :], int(head[1]), int(head[2]), int(head[3], 16))


def _condition(condition: Condition) -> list[Word]:
    key = encode_key(condition.key)
    match condition:
        case KeyIsAbsent():
            return ["absent", key, ""]
        case KeyHasLease():
            return ["lease", key, encode_lease(condition.lease)]
        case _:
            return ["revision", key, condition.mod_revision]


def _operation(operation: Operation) -> list[Any]:
    match operation:
        case Put():
            return ["put", encode_key(operation.key), operation.value, encode_lease(operation.lease)]
        case Delete():
            return ["delete", *key_range(operation.key, prefix=operation.prefix), ""]
        case Get():
            return ["get", *key_range(operation.key, prefix=operation.prefix), operation.revision]
