"""Frames, as NIXL's listeners exchange them: u64 length (little endian), then the payload. Pure: touches no socket."""

from __future__ import annotations

import struct

from trunkline.errors import MetadataDecodeError

_LENGTH = struct.Struct("<Q")


def pack_frame(payload: bytes) -> bytes:
    """Return the payload as a frame."""
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Takes a stream apart into payloads, however it was cut.

    Args:
        max_bytes: The largest payload that is read. A longer one is refused by its length, before any of it is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    @property
    def held(self) -> int:
        """How many bytes wait for the rest of their frame, or to be taken."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add what arrived.

        Raises:
            MetadataDecodeError: A frame is empty, or too long. The stream can't be read on.
        """
        self._buffer += data
        self._size()

    def take(self) -> bytes | None:
        """Return the next payload; None if it has not arrived in full.

        Raises:
            MetadataDecodeError: As :meth:`feed`.
        """
        size = self._size()
        if size is None or len(self._buffer) < _LENGTH.size + size:
            return None
        with memoryview(self._buffer) as view:
            payload = bytes(view[_LENGTH.size : _LENGTH.size + size])
        del self._buffer[: _LENGTH.size + size]
        return payload

    def _size(self) -> int | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        size: int = _LENGTH.unpack_from(self._buffer)[0]
        if not 1 <= size <= self._max_bytes:
            raise MetadataDecodeError(
                f"a frame of {size:,} bytes: 1 to {self._max_bytes:,} are read", field="length", size=size
            )
        return size
