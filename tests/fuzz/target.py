"""A format under test: valid inputs, what reads them, and how it may refuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trunkline.errors import MetadataDecodeError, TrunklineError
from trunkline.exchange.frame import pack_frame

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).parents[1] / "data"
BLOBS = [path.read_bytes() for path in sorted((DATA / "nixl-blobs").glob("*.bin"))]


@dataclass(frozen=True)
class Target:
    """One format.

    Attributes:
        read: Takes any bytes.
        seeds: Valid inputs.
        errors: What ``read`` may raise.
        cost: Bytes of arrays and objects that one byte of input may cost at its peak.
    """

    read: Callable[[bytes], object]
    seeds: list[bytes]
    errors: tuple[type[TrunklineError], ...] = field(default=(MetadataDecodeError,))
    cost: int = 4


def try_bytes(target: Target, data: bytes) -> bool:
    """Return whether the bytes were accepted; an error that the format does not name gets through."""
    try:
        target.read(data)
    except target.errors as error:
        if isinstance(error, MetadataDecodeError) and not 0 <= error.offset <= len(data):
            raise AssertionError(f"the error names an impossible offset: {error!r}") from error
        return False
    return True


def golden(stem: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((DATA / "golden").glob(f"{stem}*"))]


def stream(*payloads: bytes) -> bytes:
    return b"".join(map(pack_frame, payloads))


def parts(data: bytes) -> list[bytes]:
    """Divide an input for a reader that takes several values, where lengths are the test's own and never wrong."""
    found = []
    while data:
        end = 8 + int.from_bytes(data[:8], "little")
        found.append(data[8:end])
        data = data[end:]
    return found
