"""Trunkline moves tensors and KV cache between inference processes: find a peer by name, read its memory directly.

Importing it loads nothing: numpy, grpc and the native module come with the first name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trunkline import errors as errors
    from trunkline.agent.agent import Agent as Agent
    from trunkline.agent.aio import AsyncAgent as AsyncAgent
    from trunkline.agent.local_memory import Registration as Registration
    from trunkline.agent.pair import PreparedPair as PreparedPair
    from trunkline.agent.peer import Peer as Peer
    from trunkline.agent.tensor import LocalTensor as LocalTensor
    from trunkline.agent.tensor import RemoteTensor as RemoteTensor
    from trunkline.agent.tensor import TensorGroup as TensorGroup
    from trunkline.backend.contract import Operation as Operation
    from trunkline.directory.directory import Directory as Directory
    from trunkline.errors import TransferError as TransferError
    from trunkline.errors import TrunklineError as TrunklineError
    from trunkline.memory.descriptor import DescriptorList as DescriptorList
    from trunkline.memory.kind import MemoryKind as MemoryKind
    from trunkline.memory.typed import typed as typed
    from trunkline.store.registry import open_store as open_store
    from trunkline.transfer.handle import TransferHandle as TransferHandle
    from trunkline.transfer.inbox import Notification as Notification
    from trunkline.transfer.state import State as State
    from trunkline.transfer.waiting import as_completed as as_completed
    from trunkline.transfer.waiting import wait as wait

_HOMES = {
    "Agent": "agent.agent",
    "AsyncAgent": "agent.aio",
    "DescriptorList": "memory.descriptor",
    "Directory": "directory.directory",
    "LocalTensor": "agent.tensor",
    "MemoryKind": "memory.kind",
    "Notification": "transfer.inbox",
    "Operation": "backend.contract",
    "Peer": "agent.peer",
    "PreparedPair": "agent.pair",
    "Registration": "agent.local_memory",
    "RemoteTensor": "agent.tensor",
    "State": "transfer.state",
    "TensorGroup": "agent.tensor",
    "TransferError": "errors",
    "TransferHandle": "transfer.handle",
    "TrunklineError": "errors",
    "as_completed": "transfer.waiting",
    "open_store": "store.registry",
    "typed": "memory.typed",
    "wait": "transfer.waiting",
}

__all__ = [
    "Agent",
    "AsyncAgent",
    "DescriptorList",
    "Directory",
    "LocalTensor",
    "MemoryKind",
    "Notification",
    "Operation",
    "Peer",
    "PreparedPair",
    "Registration",
    "RemoteTensor",
    "State",
    "TensorGroup",
    "TransferError",
    "TransferHandle",
    "TrunklineError",
    "as_completed",
    "errors",
    "open_store",
    "typed",
    "wait",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("trunkline.errors")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'trunkline' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"trunkline.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
