"""Ranks that are threads, and an engine that copies memory of the process."""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trunkline.backend.contract import Operation
    from trunkline.memory.descriptor import DescriptorList


class Threads:
    """A group of threads, seen by one of them."""

    def __init__(self, rank: int, size: int, shared: dict[str, Any]) -> None:
        self.rank = rank
        self.size = size
        self._shared = shared

    def barrier(self, *, ranks: Iterable[int] | None = None, timeout: float = 30) -> None:
        barrier: threading.Barrier = self._shared[f"barrier {sorted(ranks)}" if ranks is not None else "barrier"]
        barrier.wait(min(timeout, 30))

    def allgather(self, value: bytes, *, timeout: float = 30) -> list[Any]:
        self._shared["values"][self.rank] = value
        self.barrier(timeout=timeout)
        found = list(self._shared["values"])
        self.barrier(timeout=timeout)
        return found

    def gather(self, value: bytes, *, timeout: float = 30) -> list[Any] | None:
        found = self.allgather(value, timeout=timeout)
        return found if self.rank == 0 else None


class Copy:
    """A transfer that is made when it is waited for."""

    def __init__(self, engine: CopyEngine, operation: Operation, sides: tuple[DescriptorList, DescriptorList]) -> None:
        self._engine = engine
        self._operation = operation
        self._sides = sides
        self._is_posted = False

    def post(self) -> None:
        self._is_posted = True

    def poll(self) -> bool:
        self.wait(0)
        return True

    def wait(self, timeout: float) -> None:
        assert self._is_posted
        near, far = (side.rows.tolist() for side in self._sides)
        sources, sinks = (near, far) if self._operation.name == "WRITE" else (far, near)
        self._engine.copied += len(near)
        for (source, size, _), (sink, room, _) in zip(sources, sinks, strict=True):
            assert size == room
            ctypes.memmove(sink, source, size)
        if self._engine.spoil is not None:
            self._engine.spoil(sinks)
            self._engine.spoil = None


class CopyEngine:
    """An engine whose peers are in the same process.

    Args:
        spoil: Called once, with the rows that a transfer wrote.
    """

    name = "copy"

    def __init__(self, spoil: Callable[[list[list[int]]], None] | None = None) -> None:
        self.spoil = spoil
        self.copied = 0
        self.loaded: list[str] = []
        self.registered: list[tuple[int, int]] = []

    def register(self, descriptors: DescriptorList, keys: Sequence[str] = ()) -> None:
        self.registered += [(address, address + size) for address, size, _ in descriptors.rows.tolist()]

    def deregister(self, descriptors: DescriptorList) -> None:
        for address, size, _ in descriptors.rows.tolist():
            self.registered.remove((address, address + size))

    def publish(self) -> bytes:
        return b"here"

    def load(self, name: str, handed: bytes, timeout: float) -> None:
        assert handed == b"here"
        self.loaded.append(name)

    def match(self, peer: str, near: DescriptorList, far: DescriptorList) -> Any:
        assert peer in self.loaded
        for address, size, _ in near.rows.tolist():
            assert any(start <= address and address + size <= end for start, end in self.registered)
        return near, far

    def prepare(self, operation: Operation, sides: Any) -> Copy:
        return Copy(self, operation, sides)

    def transport(self, peer: str) -> str:
        return "memmove"

    def notify(self, peer: str, payload: bytes) -> None:
        raise NotImplementedError

    def wait_notification(self, timeout: float) -> bytes:
        raise NotImplementedError

    def rest(self) -> None:
        raise NotImplementedError

    def wake(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


def run_ranks(size: int, work: Callable[[Threads], Any], subsets: Sequence[Sequence[int]] = ()) -> list[Any]:
    """Run one function on every rank and return what each returned; raise what the first raised."""
    shared: dict[str, Any] = {"barrier": threading.Barrier(size), "values": [None] * size}
    shared |= {f"barrier {sorted(ranks)}": threading.Barrier(len(ranks)) for ranks in subsets}
    results: list[Any] = [None] * size
    failures: list[BaseException] = []

    def one(rank: int) -> None:
        try:
            results[rank] = work(Threads(rank, size, shared))
        except BaseException as error:
            failures.append(error)
            for each in shared.values():
                if isinstance(each, threading.Barrier):
                    each.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
