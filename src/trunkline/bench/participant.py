"""One rank of a workload: its memory, and its way to the other ranks' memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
import numpy as np

from trunkline.bench.memory import Buffers
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from trunkline.bench.engine.contract import Engine, Request

_now = time.perf_counter_ns


class Coordinator(Protocol):
    """A group of ranks, seen by one of them; trunkline.coordination.Group is one."""

    @property
    def rank(self) -> int:
        """This worker's number."""
        ...

    @property
    def size(self) -> int:
        """How many workers there are."""
        ...

    def barrier(self, *, ranks: Iterable[int] | None = ..., timeout: float = ...) -> None:
        """Wait for the others, or for those of some ranks."""
        ...

    def gather(self, value: bytes, *, timeout: float = ...) -> list[Any] | None:
        """Return everybody's value at rank 0, None elsewhere."""
        ...

    def allgather(self, value: bytes) -> list[Any]:
        """Return everybody's value."""
        ...


class Blocks(NamedTuple):
    """Blocks of one size in one of a rank's areas.

    Attributes:
        area: Which.
        offsets: Where in it each begins.
        sizes: Bytes of each, or of all.
    """

    area: int
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64] | int


class Times(NamedTuple):
    """What the clock said of one transfer to several targets, in nanoseconds.

    Attributes:
        prepare: Until the requests were made.
        post: From there until all were posted.
        transfer: From the beginning of that until the last was done.
    """

    prepare: int
    post: int
    transfer: int

    @property
    def latency(self) -> int:
        """From the beginning to the end."""
        return self.prepare + self.transfer


class _Card(msgspec.Struct, frozen=True):
    agent: str
    handed: bytes
    addresses: tuple[int, ...]


_CARD = msgspec.msgpack.Decoder(_Card)
_TRANSPORTS = msgspec.msgpack.Decoder(dict[str, str])


class Participant:
    """This process as one of the ranks. Not for several threads at once.

    Args:
        group: All ranks; each makes its participant at the same time.
        engine: This rank's. Whoever opened it closes it, after :meth:`Coordinator.barrier`.
        name: What the engine is called.
        sizes: Bytes of each of this rank's areas; every rank has as many, each maybe of 0 bytes.
        targets: The ranks that this one moves bytes to or from.
        initiators: The ranks that do so with this one.
        timeout: Seconds that finding one of them may take.

    Attributes:
        areas: The memory.
        transports: At rank 0, what carries the bytes of each pair of ranks: ``initiator-target``.
    """

    def __init__(
        self,
        group: Coordinator,
        engine: Engine,
        name: str,
        *,
        sizes: Sequence[int],
        targets: Iterable[int],
        initiators: Iterable[int],
        timeout: float,
    ) -> None:
        self._engine = engine
        self.areas = [Buffers(1, 1, size).arrays[0][:size] if size else np.empty(0, np.uint8) for size in sizes]
        own = [(area.ctypes.data, area.nbytes, 0) for area in self.areas if area.size]
        if own:
            engine.register(DescriptorList.of(MemoryKind.DRAM, own))
        addresses = tuple(area.ctypes.data for area in self.areas)
        card = msgspec.msgpack.encode(_Card(name, engine.publish(), addresses))
        self._cards = [_CARD.decode(each) for each in group.allgather(card)]
        self._own = addresses
        for peer in sorted({*targets, *initiators} - {group.rank}):
            engine.load(self._cards[peer].agent, self._cards[peer].handed, timeout)
        links = {f"{group.rank}-{peer}": engine.transport(self._cards[peer].agent) for peer in sorted(set(targets))}
        gathered = group.gather(msgspec.msgpack.encode(links)) or ()
        self.transports = {pair: what for each in gathered for pair, what in _TRANSPORTS.decode(each).items()}

    def match(self, peer: int, near: Blocks, far: Blocks) -> Callable[[], Any]:
        """Return what looks both sides of a transfer up in the engine; their lists of blocks are made here."""
        agent = self._cards[peer].agent
        here, there = _rows(self._own, near), _rows(self._cards[peer].addresses, far)
        return lambda: self._engine.match(agent, here, there)


def move(make: Callable[[], Sequence[Request]], timeout: float) -> Times:
    """Make requests, post all of them, and wait until all are done.

    Raises:
        DeadlineError: One is not after so many seconds.
        TrunklineError: One failed.
    """
    began = _now()
    requests = make()
    made = _now()
    for request in requests:
        request.post()
    posted = _now()
    for request in requests:
        request.wait(timeout)
    return Times(made - began, posted - made, _now() - made)


def repeat(requests: Sequence[Request], timeout: float) -> int:
    """Do the same with requests that are there; return the nanoseconds from the beginning of posting to the end."""
    return move(lambda: requests, timeout).transfer


def _rows(addresses: Sequence[int], blocks: Blocks) -> DescriptorList:
    rows = np.zeros((len(blocks.offsets), 3), np.uint64)
    rows[:, 0] = np.uint64(addresses[blocks.area]) + blocks.offsets.astype(np.uint64)
    rows[:, 1] = blocks.sizes
    return DescriptorList.of(MemoryKind.DRAM, rows)
