"""Every pair of workers, each measured alone: who is slower than the others?"""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from trunkline.backend.contract import Operation
from trunkline.bench.baseline import memcpy_gb_s
from trunkline.bench.consistency import Findings, Sender, check, clear, fill
from trunkline.bench.measure import Lane, Pace, measure
from trunkline.bench.outcome import Outcome, decode_outcomes
from trunkline.bench.participant import Blocks, Participant
from trunkline.bench.result import Row
from trunkline.bench.roles import Pair
from trunkline.bench.statistics import condense
from trunkline.bench.summary import figures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.engine.contract import Engine
    from trunkline.bench.options import Options

NEAR, FAR = 0, 1

FEWEST = 4
"""Of how many pairs one can be told to be slower than the others."""

SLOW = 0.75
"""A pair is an outlier if it reaches less than this part of the median pair's bandwidth..."""

SPREADS = 3.0
"""...and lies so many spreads below: median absolute deviations, scaled to be standard deviations."""

_SCALE = 1.4826
"""Standard deviation over median absolute deviation of normally distributed values."""


class Shape(NamedTuple):
    """What one transfer is.

    Attributes:
        block_size: Bytes of a block.
        batch_size: Blocks of a transfer.
    """

    block_size: int
    batch_size: int

    @property
    def transfer_size(self) -> int:
        """Bytes of a transfer."""
        return self.block_size * self.batch_size


def schedule(hosts: Sequence[str]) -> list[tuple[Pair, ...]]:
    """Return rounds in which every worker is once the initiator, and once the target, of every other one.

    In no round do two pairs share a worker or a host: what they have in common (a network interface, the memory of a
    machine) would be measured, and not the pair. Workers of one host are measured one pair after the other.

    Args:
        hosts: Each worker's host, by rank.
    """
    # The circle method of tournaments: one stays, the others go round.
    ring: list[int | None] = [*range(len(hosts)), *([None] if len(hosts) % 2 else [])]
    rounds: list[tuple[Pair, ...]] = []
    for _ in range(len(ring) - 1):
        half = len(ring) // 2
        opposite = zip(ring[:half], reversed(ring[half:]), strict=True)
        there = [Pair(a, b) for a, b in opposite if a is not None and b is not None]
        back = [Pair(b, a) for a, b in there]
        for pairs in (there, back):
            left = pairs
            while left:
                chosen, left = _apart(left, hosts)
                rounds.append(tuple(chosen))
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return rounds


def _apart(pairs: Sequence[Pair], hosts: Sequence[str]) -> tuple[list[Pair], list[Pair]]:
    """Return those that share no host, and the others."""
    busy: set[str] = set()
    chosen, left = [], []
    for pair in pairs:
        its = {hosts[rank] for rank in pair}
        if busy & its:
            left.append(pair)
        else:
            chosen.append(pair)
            busy |= its
    return chosen, left


class MatrixWorker:
    """One worker. Not for several threads at once.

    Args:
        group: All of them.
        options: What is to be done, but for the sizes.
        shape: The transfers.
        measured: Called at rank 0 with each row as soon as it is there, and with where the first wrong byte was.
        stepping: Called on every worker when a round begins: its number, and how many there are.
    """

    def __init__(
        self,
        group: Coordinator,
        options: Options,
        shape: Shape,
        *,
        measured: Callable[[Row, str], None],
        stepping: Callable[[int, int], None],
    ) -> None:
        self._group = group
        # No more lanes than a thread makes transfers: what was not moved would count as wrong.
        depth = min(options.pipeline_depth, -(-options.num_iter // options.num_threads))
        self._options = replace(options, pipeline_depth=depth)
        self._measured = measured
        self._stepping = stepping
        self._operation = Operation[options.op_type]
        self._shape = shape
        self._size, self._count = shape

    def run(self, engine: Engine, name: str, introduce: Callable[[dict[str, str]], None]) -> None:
        """Do all of it.

        Args:
            engine: This worker's; the caller closes it.
            name: What it is called.
            introduce: Called at rank 0 with what carries each pair's bytes: ``initiator-target``.

        Raises:
            TrunklineError: A worker was lost or gave up, or a transfer failed.
        """
        group, options = self._group, self._options
        others = [rank for rank in range(group.size) if rank != group.rank]
        depth = options.num_threads * options.pipeline_depth
        total = depth * self._shape.transfer_size
        participant = Participant(
            group, engine, name, sizes=(total, total), targets=others, initiators=others, timeout=options.timeout
        )
        if group.rank == 0:
            introduce(participant.transports)
        rounds = schedule([each.decode() for each in group.allgather(socket.gethostname().encode())])
        limit = options.limit_gbps
        if not limit and group.rank == 0:
            limit = memcpy_gb_s(self._shape.transfer_size)
        for number, pairs in enumerate(rounds):
            self._stepping(number, len(rounds))
            outcome = self._take_part(engine, participant, number, pairs)
            found = group.gather(msgspec.msgpack.encode(outcome))
            if found is None:
                continue
            outcomes = decode_outcomes(found)
            for pair in pairs:
                transport = participant.transports[f"{pair.initiator}-{pair.target}"]
                row = self._row(engine.name, transport, pair, outcomes, limit)
                self._measured(row, outcomes[self._receiver(pair)].first)
        group.barrier()  # nobody takes memory back that others may still use

    def _take_part(self, engine: Engine, participant: Participant, number: int, pairs: Sequence[Pair]) -> Outcome:
        options, rank = self._options, self._group.rank
        own = next((pair for pair in pairs if rank in pair), None)
        if own is not None and options.check_consistency:
            sender = self._sender(number, own)
            area = participant.areas[NEAR if rank == own.initiator else FAR]
            (clear if rank == self._receiver(own) else fill)(sender, self._blocks(area))
        threads: list[list[Lane]] = []
        if own is not None and rank == own.initiator:
            threads = self._lanes(engine, participant, own.target)
        self._group.barrier()
        found = None
        if threads:
            each = -(-options.num_iter // options.num_threads)
            pace = Pace(options.recreate_xfer, 0.0, options.timeout)
            if options.warmup_iter:
                measure(threads, -(-options.warmup_iter // options.num_threads), pace)
            found = condense([measure(threads, each, pace)], self._shape.transfer_size)
        self._group.barrier()
        findings = Findings()
        if own is not None and options.check_consistency and rank == self._receiver(own):
            area = participant.areas[NEAR if rank == own.initiator else FAR]
            findings = check(self._sender(number, own), self._blocks(area))
        return Outcome(found, findings.wrong, findings.first)

    def _lanes(self, engine: Engine, participant: Participant, target: int) -> list[list[Lane]]:
        depth = self._options.pipeline_depth

        def lane(number: int) -> Lane:
            offsets = (number * self._count + np.arange(self._count, dtype=np.int64)) * self._size
            match = participant.match(target, Blocks(NEAR, offsets, self._size), Blocks(FAR, offsets, self._size))
            sides = match()
            return Lane(lambda: [engine.prepare(self._operation, sides)])

        return [[lane(thread * depth + place) for place in range(depth)] for thread in range(self._options.num_threads)]

    def _receiver(self, pair: Pair) -> int:
        return pair.target if self._operation is Operation.WRITE else pair.initiator

    def _sender(self, number: int, pair: Pair) -> Sender:
        source, sink = pair if self._operation is Operation.WRITE else pair[::-1]
        return Sender(self._options.seed, number, source, sink, 0)

    def _blocks(self, area: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        return (area[start : start + self._size] for start in range(0, len(area), self._size))

    def _row(self, engine: str, transport: str, pair: Pair, outcomes: Sequence[Outcome], limit: float) -> Row:
        options, measured = self._options, outcomes[pair.initiator].measured
        assert measured is not None
        rate = measured.rate / 1e9
        return Row(
            engine=engine,
            backend=options.backend,
            transport=transport,
            op_type=options.op_type,
            scheme="pairwise",
            mode="SG",
            initiator_seg_type="DRAM",
            target_seg_type="DRAM",
            pairs=1,
            num_threads=options.num_threads,
            pipeline_depth=options.pipeline_depth,
            initiator=pair.initiator,
            target=pair.target,
            block_size=self._size,
            batch_size=self._count,
            iterations=measured.transfer.count,
            bandwidth_gb_s=rate,
            **figures([measured]),
            limit_gb_s=limit,
            limit_percent=100 * rate / limit,
            wrong=outcomes[self._receiver(pair)].wrong if options.check_consistency else None,
        )


def find_outliers(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """Return the pairs that are much slower than the others, the slowest first, and the workers to blame.

    A worker is to blame if more than half of the pairs that it is in are slow, and no other worker explains them.

    Args:
        rows: Of pairs that were measured alone.
    """
    if len(rows) < FEWEST:
        return [], []
    rates = np.array([row.bandwidth_gb_s for row in rows])
    middle = float(np.median(rates))
    spread = _SCALE * float(np.median(np.abs(rates - middle)))
    bound = min(SLOW * middle, middle - SPREADS * spread)
    slow = sorted((row for row in rows if row.bandwidth_gb_s < bound), key=lambda row: row.bandwidth_gb_s)
    blamed: list[int] = []
    left = slow
    while left:
        counts: dict[int, int] = {}
        for row in left:
            for rank in (row.initiator, row.target):
                if rank is not None:
                    counts[rank] = counts.get(rank, 0) + 1
        worst = max(counts, key=lambda rank: (counts[rank], -rank))
        its = sum(1 for row in rows if worst in (row.initiator, row.target))
        if 2 * counts[worst] <= its or counts[worst] < 2:
            break
        blamed.append(worst)
        left = [row for row in left if worst not in (row.initiator, row.target)]
    return slow, blamed
