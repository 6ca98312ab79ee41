"""Beside NVIDIA's NIXL: :func:`adapt` puts an application's own ``nixl_agent`` behind Trunkline's phone book.

Importing it loads nothing: neither NIXL nor UCX, and numpy and grpc come with the first name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trunkline.nixl.adapter import NixlAdapter as NixlAdapter
    from trunkline.nixl.adapter import adapt as adapt
    from trunkline.nixl.remote_agents import NixlPeer as NixlPeer

_HOMES = {"NixlAdapter": "adapter", "NixlPeer": "remote_agents", "adapt": "adapter"}

__all__ = ["NixlAdapter", "NixlPeer", "adapt"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'trunkline.nixl' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"trunkline.nixl.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
