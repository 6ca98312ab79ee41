"""What the two sides tell each other: the connection info in the metadata, the greeting over the socket.

    connection info   "TLCM", version (1 byte), 16 random bytes that name the target's abstract Unix socket
    greeting          "TLCM", version (4 bytes), address of the nonce (8), nonce (16), the agent's name (UTF-8)

Numbers are little-endian. The connection info says neither which process nor which user it is: the kernel does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from trunkline.backend.contract import ConnectionInfo
from trunkline.errors import MetadataDecodeError

VERSION = 1
NONCE_SIZE = 16
LONGEST_INFO = 256
"""Bytes of a connection info, of a later version too."""

_MAGIC = b"TLCM"
_INFO = struct.Struct("<4sB16s")
_GREETING = struct.Struct("<4sIQ16s")
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a target says to whoever connects.

    Attributes:
        address: Where its nonce lies in its memory.
        nonce: What is to be read there.
        agent: Its agent's name.
    """

    address: int
    nonce: bytes
    agent: str


def socket_name(key: bytes) -> bytes:
    """Return the name of an abstract Unix socket, without the zero byte before it."""
    return b"trunkline-cma-" + key.hex().encode()


def encode_info(key: bytes) -> ConnectionInfo:
    """Return the connection info that names the socket of this key."""
    return ConnectionInfo(_INFO.pack(_MAGIC, VERSION, key))


def decode_info(peer: str, info: bytes) -> bytes | None:
    """Return the key in a connection info; None if it is of a later version.

    Raises:
        MetadataDecodeError: It is none.
    """
    if len(info) > LONGEST_INFO or info[:4] != _MAGIC or len(info) < 5 or info[4] == 0:
        raise MetadataDecodeError(
            f"peer {peer!r}: its CMA connection info of {len(info)} bytes is none: {info[:8]!r}…",
            field="CMA connection info",
            peer=peer,
        )
    if info[4] > VERSION:
        return None
    if len(info) != _INFO.size:
        raise MetadataDecodeError(
            f"peer {peer!r}: its CMA connection info has {len(info)} bytes; version {VERSION} has {_INFO.size}",
            field="CMA connection info",
            peer=peer,
        )
    return info[5:]


def encode_greeting(greeting: Greeting) -> bytes:
    """Return the bytes of a greeting."""
    return _GREETING.pack(_MAGIC, VERSION, greeting.address, greeting.nonce) + greeting.agent.encode()


def decode_greeting(data: bytes) -> Greeting | None:
    """Return what a greeting says; None if these bytes are none that we understand."""
    if not _GREETING.size < len(data) <= _GREETING.size + _LONGEST_NAME:
        return None
    magic, version, address, nonce = _GREETING.unpack_from(data)
    if magic != _MAGIC or version != VERSION:
        return None
    try:
        return Greeting(address, nonce, data[_GREETING.size :].decode())
    except UnicodeDecodeError:
        return None
