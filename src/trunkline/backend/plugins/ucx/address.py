"""Reads the layout of a UCX worker address, so that hostile ones are refused: UCX itself takes no length.

The format was read from UCX's ``src/ucp/wireup/address.c`` (1.21 to 1.23) and tried with both versions:

    header     version (low 4 bits) with flags (version 0), or a flags byte after it (version 1)
    identity   8 bytes (always in version 0), client id (flag 4), name with its length (flag 1)
    device     memory domain (0x80: no transports), flags and length, number of paths, system device, address
    transport  checksum of its name (2), attributes (16 or 8), flags and length, address

A device or transport marked as last ends its list. Lengths that fill their bits go on in a second byte (version 1).
"""

from __future__ import annotations

import zlib

from trunkline.errors import MetadataDecodeError

LARGEST = 32 << 10
"""Bytes of a worker address; seen: 77 with TCP alone, some 200 by default. UCX gets it with zeros up to 64 KiB."""

MOST_TRANSPORTS = 128
"""UCX's ``UCP_MAX_RESOURCES``."""

_LAST = 0x80
_HAS_IDENTITY = 2  # in version 1; always there in version 0
_HAS_CLIENT_ID = 4
_HAS_NAME = 1

AddressLayout = dict[int, tuple[bool, bool]]
"""By checksum of a transport's name: whether it has a device address and an address of its own."""


def worker_identity(address: bytes) -> int:
    """Return 64 bits that tell the UCX worker of a (checked) address from others, in whatever form it is."""
    version = address[0] & 0xF if address else 0
    at = 1 + version
    if version == 0 or address[1] & _HAS_IDENTITY:
        return int.from_bytes(address[at : at + 8], "little")
    return zlib.crc32(address)


def read_layout(peer: str, address: bytes) -> AddressLayout:
    """Walk a worker address to exactly its end and return which transports have which addresses.

    Raises:
        MetadataDecodeError: The address is not one that UCX makes.
    """
    if len(address) > LARGEST:
        raise MetadataDecodeError(
            f"peer {peer!r}: its UCX worker address is {len(address)} bytes; at most {LARGEST} are possible",
            field="worker address",
            peer=peer,
        )
    return _Walk(peer, address).layout()


def check_worker_address(peer: str, address: bytes, ours: AddressLayout) -> None:
    """Refuse an address that UCX would crash on.

    Args:
        peer: The peer's name, for the message.
        address: Its worker address.
        ours: The layout of our own: where a transport has addresses with us, the peer's must have them too, since UCX
            (1.22) reads them without looking whether they are there.

    Raises:
        MetadataDecodeError: It can't be read to its end, or lacks addresses.
    """
    for checksum, present in read_layout(peer, address).items():
        if any(mine and not theirs for mine, theirs in zip(ours.get(checksum, ()), present, strict=False)):
            raise MetadataDecodeError(
                f"peer {peer!r}: its UCX worker address lacks the address of transport {checksum:#06x}",
                field="worker address",
                peer=peer,
            )


class _Walk:
    def __init__(self, peer: str, address: bytes) -> None:
        self._peer = peer
        self._address = address
        self._at = 0

    def layout(self) -> AddressLayout:
        version = self._byte()
        flags, version = version >> 4, version & 0xF
        if version > 1:
            raise self._wrong(f"its version is {version}; 0 and 1 are known")
        if version == 1:
            flags = self._byte()
        self._skip(8 * (version == 0 or bool(flags & _HAS_IDENTITY)) + 8 * bool(flags & _HAS_CLIENT_ID))
        if flags & _HAS_NAME:
            self._skip(self._byte())
        layout: AddressLayout = {}
        transports = 0
        is_last_device = False
        while not is_last_device:
            domain = self._byte()
            if version == 1 and domain & 0x7F == 0x7F:
                self._skip(1)
            marks, size = self._length(0x1F, version)
            is_last_device = bool(marks & _LAST)
            self._skip(bool(marks & 0x40) + bool(marks & 0x20) + size)
            is_last_transport = bool(domain & 0x80)
            while not is_last_transport:
                transports += 1
                if transports > MOST_TRANSPORTS:
                    raise self._wrong(f"it has more than {MOST_TRANSPORTS} transports")
                checksum = self._byte() | self._byte() << 8
                self._skip(16 if version == 0 else 8)
                marks, own_size = self._length(0x3F, version)
                if marks & 0x40:
                    raise self._wrong("it has addresses of endpoints, which a worker's never has")
                is_last_transport = bool(marks & _LAST)
                self._skip(own_size)
                has_device, has_own = layout.get(checksum, (True, True))
                layout[checksum] = (has_device and size > 0, has_own and own_size > 0)
        if self._at != len(self._address):
            raise self._wrong(f"{len(self._address) - self._at} bytes are left over")
        return layout

    def _byte(self) -> int:
        self._skip(1)
        return self._address[self._at - 1]

    def _length(self, mask: int, version: int) -> tuple[int, int]:
        byte = self._byte()
        size = byte & mask
        return byte & ~mask, self._byte() if version == 1 and size == mask else size

    def _skip(self, size: int) -> None:
        if size > len(self._address) - self._at:
            raise self._wrong("it is cut short")
        self._at += size

    def _wrong(self, what: str) -> MetadataDecodeError:
        return MetadataDecodeError(
            f"peer {self._peer!r}: its UCX worker address of {len(self._address)} bytes can't be read at offset "
            f"{self._at}: {what}",
            field="worker address",
            offset=self._at,
            peer=self._peer,
        )
