"""Notifications as NIXL sends them: a container with ``name`` (the sender) and ``msg`` (its bytes)."""

from __future__ import annotations

from trunkline.errors import MetadataDecodeError
from trunkline.metadata.container import MAGIC, ContainerReader, pack_field
from trunkline.metadata.key import MAX_NAME_SIZE

MAX_BYTES = 64 << 20
"""The largest encoded notification that is read."""


def encode_notification(sender: str, message: bytes) -> bytes:
    """Return a notification of ``message`` (may be empty) from the agent called ``sender``."""
    return b"".join((MAGIC, pack_field(b"name", sender.encode()), pack_field(b"msg", message)))


def decode_notification(payload: bytes) -> tuple[str, bytes]:
    """Return the name the sender gave itself, which nothing proves, and the message.

    Raises:
        MetadataDecodeError: Not exactly one well-formed notification, or larger than ``MAX_BYTES``.
    """
    if len(payload) > MAX_BYTES:
        raise MetadataDecodeError(f"notification of {len(payload)} bytes: at most {MAX_BYTES} are read", field="size")
    reader = ContainerReader(payload, "notification")
    sender = reader.read_text(b"name", max_size=MAX_NAME_SIZE)
    message = reader.read(b"msg", min_size=0, max_size=MAX_BYTES)
    reader.finish()
    return sender, message
