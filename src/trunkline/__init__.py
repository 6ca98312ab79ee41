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
    from trunkline.agent.explanation import BackendReport as BackendReport
    from trunkline.agent.explanation import Explanation as Explanation
    from trunkline.agent.pair import PreparedPair as PreparedPair
    from trunkline.agent.peer import Peer as Peer
    from trunkline.agent.phone_book import Health as Health
    from trunkline.agent.registration import Registration as Registration
    from trunkline.agent.tensor import LocalTensor as LocalTensor
    from trunkline.agent.tensor import RemoteTensor as RemoteTensor
    from trunkline.agent.tensor import TensorGroup as TensorGroup
    from trunkline.backend.contract import Operation as Operation
    from trunkline.directory.directory import Directory as Directory
    from trunkline.directory.event import LeaveReason as LeaveReason
    from trunkline.directory.event import NameConflict as NameConflict
    from trunkline.directory.event import PeerJoined as PeerJoined
    from trunkline.directory.event import PeerLeft as PeerLeft
    from trunkline.directory.event import PeerSuspect as PeerSuspect
    from trunkline.directory.event import PeerUpdated as PeerUpdated
    from trunkline.directory.event import StoreBack as StoreBack
    from trunkline.directory.event import StoreLost as StoreLost
    from trunkline.directory.event import Synced as Synced
    from trunkline.directory.publisher import Publisher as Publisher
    from trunkline.directory.view import AgentListing as AgentListing
    from trunkline.directory.view import DirectoryView as DirectoryView
    from trunkline.directory.watch import DirectoryWatch as DirectoryWatch
    from trunkline.errors import TransferError as TransferError
    from trunkline.errors import TrunklineError as TrunklineError
    from trunkline.memory.descriptor import DescriptorList as DescriptorList
    from trunkline.memory.file import File as File
    from trunkline.memory.file import StoredObject as StoredObject
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
    "AgentListing": "directory.view",
    "AsyncAgent": "agent.aio",
    "BackendReport": "agent.explanation",
    "DescriptorList": "memory.descriptor",
    "Directory": "directory.directory",
    "DirectoryView": "directory.view",
    "DirectoryWatch": "directory.watch",
    "Explanation": "agent.explanation",
    "File": "memory.file",
    "Health": "agent.phone_book",
    "LeaveReason": "directory.event",
    "LocalTensor": "agent.tensor",
    "MemoryKind": "memory.kind",
    "NameConflict": "directory.event",
    "Notification": "transfer.inbox",
    "Operation": "backend.contract",
    "Peer": "agent.peer",
    "PeerJoined": "directory.event",
    "PeerLeft": "directory.event",
    "PeerSuspect": "directory.event",
    "PeerUpdated": "directory.event",
    "PreparedPair": "agent.pair",
    "Publisher": "directory.publisher",
    "Registration": "agent.registration",
    "RemoteTensor": "agent.tensor",
    "State": "transfer.state",
    "StoreBack": "directory.event",
    "StoreLost": "directory.event",
    "StoredObject": "memory.file",
    "Synced": "directory.event",
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
    "AgentListing",
    "AsyncAgent",
    "BackendReport",
    "DescriptorList",
    "Directory",
    "DirectoryView",
    "DirectoryWatch",
    "Explanation",
    "File",
    "Health",
    "LeaveReason",
    "LocalTensor",
    "MemoryKind",
    "NameConflict",
    "Notification",
    "Operation",
    "Peer",
    "PeerJoined",
    "PeerLeft",
    "PeerSuspect",
    "PeerUpdated",
    "PreparedPair",
    "Publisher",
    "Registration",
    "RemoteTensor",
    "State",
    "StoreBack",
    "StoreLost",
    "StoredObject",
    "Synced",
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
