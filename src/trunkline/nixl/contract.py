"""What is needed of a NIXL agent: a part of the API of NVIDIA's ``nixl_agent``, so that it can be one."""

from __future__ import annotations

from typing import Any, Protocol


class NixlAgent(Protocol):
    """NVIDIA's ``nixl_agent``, or anything with these methods. Every method may raise any exception.

    By default NIXL takes no lock and its calls release the GIL, so one thread at a time may be in any of its methods.
    """

    def get_agent_metadata(self) -> bytes:
        """Return everything a peer needs: connection info and all registered memory."""
        ...

    def get_partial_agent_metadata(self, descs: Any, inc_conn_info: bool, backends: list[str]) -> bytes:
        """Return some registered memory, with connection info or without."""
        ...

    def add_remote_agent(self, metadata: bytes) -> str | bytes:
        """Load a peer; memory of one that is loaded is added to, and refused where it differs."""
        ...

    def remove_remote_agent(self, agent: str) -> Any:
        """Forget a peer: transfers to it end, and handles that were made for it are refused from then on."""
        ...
