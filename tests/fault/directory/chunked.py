"""A publisher of more than fits into one transaction, and a store that stops at a chunk. Also a process of its own:

Arguments: endpoint, namespace. It publishes, says ``published``, publishes something else, says ``midway`` when two
chunks of that are written, and does not go on.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import numpy as np

from trunkline.directory import Directory
from trunkline.memory.kind import MemoryKind
from trunkline.metadata.codec import encode
from trunkline.metadata.model import AgentMetadata, RemoteKeys, SectionMetadata
from trunkline.store import open_store
from trunkline.store.contract import Get, Put, Transaction, TransactionResult
from trunkline.testing.faulty_store import FaultyStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from trunkline.store.contract import Store

NAME, INCARNATION, TTL = "large", "1" * 32, 2.0


def content(first: int) -> bytes:
    """Return 2 MB of metadata, which differ with the number: four chunks."""
    address = 4096 * np.arange(first, first + 40_000, dtype=np.uint64)
    rows = np.stack([address, np.full_like(address, 4096), np.zeros_like(address)], 1)
    every = np.zeros(len(rows), np.int64)
    section = SectionMetadata("UCX", MemoryKind.DRAM, rows, RemoteKeys(b"0123456789abcdef", every, every + 16))
    return encode(AgentMetadata(NAME, {"UCX": b"address"}, (section,)))


class HookedStore(FaultyStore):
    """Calls ``hook`` before each transaction, with what it does to chunks: ``put 2`` or ``get 0``, or nothing."""

    def __init__(self, store: Store, hook: Callable[[str], None]) -> None:
        super().__init__(store)
        self.hook = hook

    def transact(self, transaction: Transaction, *, timeout: float | None) -> TransactionResult:
        first = next(iter(transaction.then), None)
        what = ""
        if isinstance(first, (Put, Get)) and "/.chunks/" in first.key:
            what = f"{type(first).__name__.lower()} {first.key.rpartition('/')[2]}"
        self.hook(what)
        return super().transact(transaction, timeout=timeout)


def main() -> None:
    endpoint, namespace = sys.argv[1:]

    def stop(what: str) -> None:
        if what == "put 2" and is_published:
            print("midway", flush=True)
            threading.Event().wait()

    is_published = False
    with HookedStore(open_store(endpoint), stop) as store:
        publisher = Directory(store, namespace=namespace).open_publisher(NAME, incarnation=INCARNATION, ttl=TTL)
        publisher.publish(content(0))
        is_published = True
        print("published", flush=True)
        publisher.publish(content(1))


if __name__ == "__main__":
    main()
