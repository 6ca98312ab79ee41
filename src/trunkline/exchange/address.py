"""Where somebody listens."""

from __future__ import annotations

from typing import NamedTuple


class Address(NamedTuple):
    """A TCP address; as text an IPv6 host is in brackets.

    Attributes:
        host: A host name or an IP address.
        port: The port.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
