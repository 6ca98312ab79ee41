"""A ticket: where an offer listens, the secret that it asks for, and what it offers.

    trunkline://HOST:PORT/SECRET/DIGEST

The secret (16 bytes) and the digest (32) are in URL-safe base64, without padding. No agent's name has a slash.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from trunkline.errors import TicketError
from trunkline.exchange.address import Address

SCHEME = "trunkline://"
SECRET_SIZE = 16
DIGEST_SIZE = 32


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a taker needs. As text it is the ticket, secret included; its ``repr`` is without.

    Attributes:
        address: Where the offer listens.
        secret: What both sides prove to know.
        digest: SHA-256 of the encoded manifest.
    """

    address: Address
    secret: bytes = field(repr=False)
    digest: bytes

    def __str__(self) -> str:
        return f"{SCHEME}{self.address}/{_encode(self.secret)}/{_encode(self.digest)}"


def is_ticket(text: str) -> bool:
    """Return whether a text is meant as a ticket; it may still be a bad one."""
    return text.startswith(SCHEME)


def parse_ticket(text: str) -> Ticket:
    """Return what a ticket says.

    Raises:
        TicketError: It is none; the message does not repeat it.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        empty, secret, digest = parts.path.split("/")
        ticket = Ticket(Address(host or "", port or 0), _decode(secret), _decode(digest))
    except (ValueError, binascii.Error):
        raise _bad() from None
    is_whole = (len(ticket.secret), len(ticket.digest), empty) == (SECRET_SIZE, DIGEST_SIZE, "")
    if not is_ticket(text) or not is_whole or not all(ticket.address) or parts.query or parts.fragment:
        raise _bad()
    return ticket


def _bad() -> TicketError:
    return TicketError(f"this is not a ticket: one reads {SCHEME}HOST:PORT/SECRET/DIGEST; copy all of it")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _encode(data) != text:  # bits that mean nothing are set
        raise ValueError("not canonical")
    return data
