"""Beside NVIDIA's NIXL: its Python API over Trunkline's agent, so that code written for it runs unchanged.

``from trunkline.nixl import nixl_agent`` takes the place of ``from nixl import nixl_agent``; for programs that are not
to be touched there is ``trunkline as-nixl``. What differs on purpose is listed in the documentation, page "NIXL
compatibility". :func:`adapt` puts an application's own ``nixl_agent`` of NVIDIA's behind Trunkline's phone book.

Importing it loads nothing: neither NIXL nor UCX, and numpy and grpc come with the first name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trunkline.nixl.adapter import NixlAdapter as NixlAdapter
    from trunkline.nixl.agent import nixl_agent as nixl_agent
    from trunkline.nixl.agent import nixl_backend_handle as nixl_backend_handle
    from trunkline.nixl.config import nixl_agent_config as nixl_agent_config
    from trunkline.nixl.config import nixl_thread_sync_t as nixl_thread_sync_t
    from trunkline.nixl.enumeration import DEFAULT_COMM_PORT as DEFAULT_COMM_PORT
    from trunkline.nixl.handle import nixl_prepped_dlist_handle as nixl_prepped_dlist_handle
    from trunkline.nixl.handle import nixl_xfer_handle as nixl_xfer_handle
    from trunkline.nixl.opening import adapt as adapt
    from trunkline.nixl.remote_agents import NixlPeer as NixlPeer

_HOMES = {
    "DEFAULT_COMM_PORT": "enumeration",
    "NixlAdapter": "adapter",
    "NixlPeer": "remote_agents",
    "adapt": "opening",
    "nixl_agent": "agent",
    "nixl_agent_config": "config",
    "nixl_backend_handle": "agent",
    "nixl_prepped_dlist_handle": "handle",
    "nixl_thread_sync_t": "config",
    "nixl_xfer_handle": "handle",
}

__all__ = [
    "DEFAULT_COMM_PORT",
    "NixlAdapter",
    "NixlPeer",
    "adapt",
    "nixl_agent",
    "nixl_agent_config",
    "nixl_backend_handle",
    "nixl_prepped_dlist_handle",
    "nixl_thread_sync_t",
    "nixl_xfer_handle",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'trunkline.nixl' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"trunkline.nixl.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
