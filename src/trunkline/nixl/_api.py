"""The names that clients import from ``nixl._api``."""

from __future__ import annotations

from trunkline.nixl import _bindings as nixlBind
from trunkline.nixl.agent import nixl_agent as nixl_agent
from trunkline.nixl.agent import nixl_backend_handle as nixl_backend_handle
from trunkline.nixl.config import nixl_agent_config as nixl_agent_config
from trunkline.nixl.config import nixl_thread_sync_t as nixl_thread_sync_t
from trunkline.nixl.enumeration import DEFAULT_COMM_PORT as DEFAULT_COMM_PORT
from trunkline.nixl.handle import nixl_prepped_dlist_handle as nixl_prepped_dlist_handle
from trunkline.nixl.handle import nixl_xfer_handle as nixl_xfer_handle
from trunkline.nixl.logging import get_logger as get_logger

__all__ = [
    "DEFAULT_COMM_PORT",
    "get_logger",
    "nixlBind",
    "nixl_agent",
    "nixl_agent_config",
    "nixl_backend_handle",
    "nixl_prepped_dlist_handle",
    "nixl_thread_sync_t",
    "nixl_xfer_handle",
]
