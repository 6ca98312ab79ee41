"""The messages of NIXL's listeners, one a frame: ``NIXLCOMM:``, four letters, body."""

from __future__ import annotations

from typing import NamedTuple

from trunkline.errors import MetadataDecodeError
from trunkline.metadata import codec
from trunkline.metadata.key import is_agent_name

MAGIC = b"NIXLCOMM:"
LOAD = b"LOAD"
"""Body: metadata. The receiver loads them."""
SEND = b"SEND"
"""No body. The receiver answers on the same connection with LOAD and its own metadata."""
INVALIDATE = b"INVL"
"""Body: an agent's name. The receiver forgets that agent."""

_HEAD = len(MAGIC) + 4

MAX_BYTES = _HEAD + codec.MAX_BYTES
"""The longest message that is read (64 MiB of metadata); NIXL's own limit is 1 GiB."""


class NixlMessage(NamedTuple):
    """What a frame says.

    Attributes:
        verb: LOAD, SEND or INVALIDATE.
        body: The rest.
    """

    verb: bytes
    body: bytes = b""

    def encode(self) -> bytes:
        """Return the payload of a frame."""
        return MAGIC + self.verb + self.body


def decode_message(payload: bytes) -> NixlMessage:
    """Return what a payload says. The metadata are not looked at.

    One payload is one message. NIXL cuts it at each ``NIXLCOMM:``, so metadata that hold this text break there.

    Raises:
        MetadataDecodeError: It is no message: another start, an unknown verb, a body where none belongs, no name.
    """
    if not payload.startswith(MAGIC):
        raise MetadataDecodeError(f"no message: it starts with {payload[:16]!r}, not with {MAGIC!r}", field="magic")
    message = NixlMessage(payload[len(MAGIC) : _HEAD], payload[_HEAD:])
    if message.verb not in {LOAD, SEND, INVALIDATE}:
        raise MetadataDecodeError(f"no message: unknown verb {message.verb!r}", field="verb", offset=len(MAGIC))
    if message.verb == SEND and message.body:
        raise MetadataDecodeError("no message: SEND has no body", field="body", offset=_HEAD)
    if message.verb == INVALIDATE:
        agent_name(message.body)
    return message


def agent_name(body: bytes) -> str:
    """Return the name that INVALIDATE is about.

    Raises:
        MetadataDecodeError: No agent can be called so.
    """
    try:
        name = body.decode()
    except UnicodeDecodeError:
        name = ""
    if not is_agent_name(name):
        raise MetadataDecodeError(f"no agent can be called {body[:80]!r}", field="name", offset=_HEAD)
    return name
