"""Mutations that keep enough of an input's structure to get past its magic, lengths and punctuation."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

NUMBERS = (0, 1, 2, 23, 24, 25, 33, 255, 2**16, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 25, 2**64 - 1)

MAX_GROWTH = 8 << 10
"""Bytes that one mutation adds at most: megabytes would only be slower."""

_LENGTH = struct.Struct("<Q")
_NUMERAL = re.compile(rb"\d+")
DELIMITERS = (b"|", b",", b"/", b":", b"{", b"[", b'"')
_TOKENS = (
    *(str(number).encode() for number in (-1, *NUMBERS, 2**63 + 1, 10**400)),
    b"9" * 4300,  # as many digits as int() takes
    b"9" * 4301,
    b"1e999",
    b"-0.0",
    b"null",
    b'"\\ud800"',
    b'"\\u0000"',
    b"\xff\xfe",
    b"\xed\xa0\x80",  # a surrogate, in what would be UTF-8
    b"../",
    b"[" * 2000,
    b'{"":' * 2000,
    b"\x91" * 2000,  # an array of one, in MessagePack
    b"\xdd\xff\xff\xff\xff",  # an array of four billion
    b"\xdf\xff\xff\xff\xff",  # a map
    b"\xc6\xff\xff\xff\xff",  # bytes
)


def mutate(seed: bytes, other: bytes, chance: Random) -> bytes:
    """Return the seed with one to four mutations; some splice in parts of another seed."""
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        chance.choice(_MUTATIONS)(data, other, chance)
    return bytes(data)


def _truncate(data: bytearray, _: bytes, chance: Random) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _flip_a_bit(data: bytearray, _: bytes, chance: Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _write_a_byte(data: bytearray, _: bytes, chance: Random) -> None:
    at = chance.randrange(len(data) + 1)
    data[at : at + 1] = bytes([chance.randrange(256)])


def _write_a_number(data: bytearray, _: bytes, chance: Random) -> None:
    at = chance.randrange(len(data) + 1)
    size, order = chance.choice(((8, "<Q"), (8, "<Q"), (4, ">I"), (2, ">H")))
    data[at : at + size] = struct.pack(order, chance.choice(NUMBERS) % 256**size)


def _leave_out(data: bytearray, _: bytes, chance: Random) -> None:
    at = chance.randrange(len(data) + 1)
    del data[at : at + chance.choice((1, 2, 8, 9, 44, 100))]


def _repeat(data: bytearray, _: bytes, chance: Random) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = data[at : at + chance.choice((1, 2, 8, 9, 44, 100))]


def _go_on_with_another(data: bytearray, other: bytes, chance: Random) -> None:
    data[chance.randrange(len(data) + 1) :] = other[chance.randrange(len(other) + 1) :]


def _resize_a_field(data: bytearray, other: bytes, chance: Random) -> None:
    """Change a value behind a u64 length, and the length with it."""
    at = chance.randrange(len(data) + 1)
    end = min(len(data) - _LENGTH.size, at + 100)
    while at < end:
        (size,) = _LENGTH.unpack_from(data, at)
        start = at + _LENGTH.size
        if 0 < size <= len(data) - start:
            value = bytearray(data[start : start + size])
            chance.choice(_SMALL)(value, other, chance)
            data[at : start + size] = _LENGTH.pack(len(value)) + value
            return
        at += 1


def _rearrange(data: bytearray, other: bytes, chance: Random) -> None:
    """Repeat, drop, swap or borrow what lies between two delimiters."""
    delimiter = chance.choice(DELIMITERS)
    parts = bytes(data).split(delimiter)
    at, to = chance.randrange(len(parts)), chance.randrange(len(parts))
    match chance.randrange(5):
        case 0:
            parts.insert(to, parts[at])
        case 1:
            del parts[at]
        case 2:
            parts[at], parts[to] = parts[to], parts[at]
        case 3:
            parts[at] = chance.choice(other.split(delimiter))
        case _:
            parts[at:at] = parts[at : at + 1] * min(500, MAX_GROWTH // (len(parts[at]) + 1))
    data[:] = delimiter.join(parts)


def _write_a_numeral(data: bytearray, _: bytes, chance: Random) -> None:
    """Change a number that is written in digits."""
    found = _NUMERAL.search(data, chance.randrange(len(data) + 1))
    if found is not None:
        data[found.start() : found.end()] = chance.choice(_TOKENS)


def _insert_a_token(data: bytearray, _: bytes, chance: Random) -> None:
    at = chance.randrange(len(data) + 1)
    data[at : at + chance.choice((0, 1, 4))] = chance.choice(_TOKENS)


_SMALL: tuple[Callable[[bytearray, bytes, Random], None], ...] = (
    _truncate,
    _flip_a_bit,
    _write_a_byte,
    _write_a_number,
    _leave_out,
    _repeat,
    _insert_a_token,
)
_MUTATIONS = (*_SMALL, _go_on_with_another, _resize_a_field, _resize_a_field, _rearrange, _rearrange, _write_a_numeral)
