"""One rank of a workload: its memory, and its way to the other ranks' memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trunkline.bench.memory import Buffers
from trunkline.bench.team import Card, Link, decode_cards, decode_links, encode
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.engine.contract import Engine, Request

_now = time.perf_counter_ns


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
        card = Card(agent=name, handed=engine.publish(), addresses=addresses)
        self._cards = decode_cards(group.allgather(encode(card)))
        self._own = addresses
        for peer in sorted({*targets, *initiators} - {group.rank}):
            engine.load(self._cards[peer].agent, self._cards[peer].handed, timeout)
        own_links = [Link(group.rank, peer, engine.transport(self._cards[peer].agent)) for peer in sorted(set(targets))]
        links = decode_links(group.gather(encode(own_links)) or ())
        self.transports = {f"{link.initiator}-{link.target}": link.transport for link in links}

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
    ((times,), _) = move_all([make], timeout)
    return times


def move_all(makers: Sequence[Callable[[], Sequence[Request]]], timeout: float) -> tuple[tuple[Times, ...], int]:
    """Make and post several groups of requests, one group after the other, and wait for them in that order.

    Returns:
        What each took until it and those before it were done, and nanoseconds in all.

    Raises:
        DeadlineError: One is not done so many seconds after it was first waited for.
        TrunklineError: One failed.
    """
    started: list[tuple[Sequence[Request], int, int, int]] = []
    first = began = posted = end = _now()
    for make in makers:
        began = posted
        requests = make()
        made = _now()
        for request in requests:
            request.post()
        posted = _now()
        started.append((requests, began, made, posted))
    times: list[Times] = []
    for requests, began, made, posted in started:
        for request in requests:
            request.wait(timeout)
        end = _now()
        times.append(Times(made - began, posted - made, end - made))
    return tuple(times), end - first


def repeat(requests: Sequence[Request], timeout: float) -> int:
    """Do the same with requests that are there; return the nanoseconds from the beginning of posting to the end."""
    return move(lambda: requests, timeout).transfer


def _rows(addresses: Sequence[int], blocks: Blocks) -> DescriptorList:
    rows = np.zeros((len(blocks.offsets), 3), np.uint64)
    rows[:, 0] = np.uint64(addresses[blocks.area]) + blocks.offsets.astype(np.uint64)
    rows[:, 1] = blocks.sizes
    return DescriptorList.of(MemoryKind.DRAM, rows)
