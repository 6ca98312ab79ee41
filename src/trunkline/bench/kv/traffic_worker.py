"""Moving patterns of traffic, each alone and then one after the other, and what that took."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from trunkline.backend.contract import Operation
from trunkline.bench.kv.verification import Placed, compare, content
from trunkline.bench.participant import Blocks, Participant, repeat
from trunkline.bench.team import decode_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.engine.contract import Engine, Request
    from trunkline.bench.kv.traffic import Pattern, Traffic

_SENT, _RECEIVED = 0, 1
"""The areas of a rank."""


class PatternTime(msgspec.Struct, frozen=True, kw_only=True):
    """What one pattern took.

    A latency is that of the rank that took longest, from the beginning of posting until its last block was there. What
    a run that broke off did not come to is None.

    Attributes:
        bytes: Of all ranks.
        senders: How many ranks send something.
        latency_avg_us: Among the other patterns.
        latency_p50_us: The same.
        latency_p99_us: The same.
        isolated_avg_us: Alone.
        isolated_p50_us: The same.
        isolated_p99_us: The same.
        slowdown: The median among the others by the median alone; above 1 they got in its way.
        bandwidth_gb_s: All bytes by the mean latency among the others, in 10^9 bytes a second.
    """

    bytes: int
    senders: int
    latency_avg_us: float | None
    latency_p50_us: float | None
    latency_p99_us: float | None
    isolated_avg_us: float
    isolated_p50_us: float
    isolated_p99_us: float
    slowdown: float | None
    bandwidth_gb_s: float | None


class TrafficRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found: the JSON document.

    Attributes:
        engine: What moved the bytes.
        transports: What carried them, for each pair of ranks that moved some: ``initiator-target``.
        iterations: How often all patterns were run, one after the other.
        isolated: How often each was run alone.
        patterns: In the order of the file; where the run broke off those that had been run alone.
        wrong: Blocks that did not hold what they should; None where that was not checked.
        first_wrong: Where the first of them differs, in words.
        is_complete: Whether this is all; False where the run broke off.
        format: Which schema this follows.
    """

    engine: str
    transports: dict[str, str]
    iterations: int
    isolated: int
    patterns: tuple[PatternTime, ...]
    wrong: int | None
    first_wrong: str = ""
    is_complete: bool = True
    format: Literal["trunkline-bench-traffic/1"] = "trunkline-bench-traffic/1"


class _Outcome(msgspec.Struct, frozen=True):
    """What one rank tells the others of one round.

    Attributes:
        times: In nanoseconds: of one pattern alone, each repetition; or of all patterns, NaN where it posts nothing.
        wrong: Blocks that did not hold what they should.
        first: Where the first of them differs.
    """

    times: tuple[float, ...] = ()
    wrong: int = 0
    first: str = ""


_OUTCOME = msgspec.msgpack.Decoder(_Outcome)


class TrafficWorker:
    """One rank of a run. Not for several threads at once.

    Args:
        group: All ranks, as many as the traffic has.
        traffic: What is moved, from and to memory of the host.
        seed: What blocks hold is drawn from it.
        is_checked: Whether each pattern is moved once before, and every block compared where it arrives.
        timeout: Seconds that finding a rank, and one pattern, may take.
        sleep: How to wait for patterns that compute before they move.
    """

    def __init__(
        self,
        group: Coordinator,
        traffic: Traffic,
        *,
        seed: int = 0,
        is_checked: bool = False,
        timeout: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._group = group
        self._traffic = traffic
        self._seed = seed
        self._is_checked = is_checked
        self._timeout = timeout
        self._sleep = sleep
        self._blocks = [pattern.blocks() for pattern in traffic.patterns]
        self._sizes = traffic.rank_bytes
        self._transports: dict[str, str] = {}
        self._checked: list[_Outcome] = []
        self._alone: list[NDArray[np.float64]] = []
        self._among: list[NDArray[np.float64]] = []

    def run(
        self,
        engine: Engine,
        name: str,
        *,
        introduce: Callable[[dict[str, str]], None] = lambda _: None,
        progress: Callable[[int, int], None] = lambda _, __: None,
    ) -> None:
        """Move all patterns. :meth:`result` has what they took then, or where it broke off until then.

        Args:
            engine: This rank's; it is not closed.
            name: What it is called.
            introduce: Told before anything is moved what carries the bytes of each pair; at rank 0.
            progress: Told how many of how many rounds were made, those alone among them.

        Raises:
            TrunklineError: A rank was lost or gave up, or a transfer failed.
        """
        rank, patterns = self._group.rank, self._traffic.patterns
        links = {
            link for pattern, blocks in zip(patterns, self._blocks, strict=True) for link in _links(pattern, blocks)
        }
        participant = Participant(
            self._group,
            engine,
            name,
            sizes=self._sizes[:, rank].tolist(),
            targets=[target for initiator, target in links if initiator == rank],
            initiators=[initiator for initiator, target in links if target == rank],
            timeout=self._timeout,
        )
        self._transports = participant.transports
        if rank == 0:
            introduce(self._transports)
        requests = [self._requests(participant, engine, number) for number in range(len(patterns))]
        if self._is_checked:
            self._checked = self._collect(_Outcome((), *self._verify(participant, requests)))
        rounds = len(patterns) + self._traffic.iterations
        for number, mine in enumerate(requests):
            outcomes = self._collect(_Outcome(self._run_alone(mine)))
            self._alone.append(np.max([each.times for each in outcomes if each.times], axis=0) / 1e3)
            progress(number + 1, rounds)
        for number in range(self._traffic.iterations):
            outcomes = self._collect(_Outcome(self._run_among(requests)))
            self._among.append(np.nanmax([each.times for each in outcomes], axis=0) / 1e3)
            progress(len(patterns) + number + 1, rounds)

    def _collect(self, outcome: _Outcome) -> list[_Outcome]:
        """Wait for all ranks, which nobody disturbs any more then, and return what they found."""
        found = self._group.allgather(msgspec.msgpack.encode(outcome), timeout=self._patience)
        return decode_all(_OUTCOME, found, "an outcome")

    @property
    def _patience(self) -> float:
        """How long a rank that has nothing to move may wait for the others."""
        return sum(pattern.sleep + self._timeout for pattern in self._traffic.patterns)

    def _requests(self, participant: Participant, engine: Engine, number: int) -> list[Request]:
        pattern = self._traffic.patterns[number]
        found = []
        for sender, receiver, size, sent, received in self._blocks[number].tolist():
            ends = (
                (sender, Blocks(_SENT, np.array([sent]), size)),
                (receiver, Blocks(_RECEIVED, np.array([received]), size)),
            )
            (initiator, near), (target, far) = ends if pattern.op_type == "WRITE" else reversed(ends)
            if initiator == self._group.rank:
                found.append(engine.prepare(Operation[pattern.op_type], participant.match(target, near, far)()))
        return found

    def _run_alone(self, requests: Sequence[Request]) -> tuple[int, ...]:
        for _ in range(self._traffic.warmup if requests else 0):
            repeat(requests, self._timeout)
        times = []
        for _ in range(self._traffic.isolated):
            self._group.barrier(timeout=self._patience * max(1, self._traffic.warmup))
            if requests:
                times.append(repeat(requests, self._timeout))
        return tuple(times)

    def _run_among(self, requests: Sequence[Sequence[Request]]) -> tuple[float, ...]:
        """Run all patterns once; those that share no initiator overlap."""
        times: list[float] = []
        for pattern, blocks, mine in zip(self._traffic.patterns, self._blocks, requests, strict=True):
            if not mine:
                times.append(math.nan)
                continue
            initiators = sorted({initiator for initiator, _ in _links(pattern, blocks)})
            self._group.barrier(timeout=self._patience, ranks=initiators)
            if pattern.sleep:
                self._sleep(pattern.sleep)
            times.append(repeat(mine, self._timeout))
        return tuple(times)

    def _verify(self, participant: Participant, requests: Sequence[Sequence[Request]]) -> tuple[int, str]:
        """Move every pattern once, and compare what arrives here."""
        rank, wrong, first = self._group.rank, 0, ""
        sent, received = participant.areas
        for number, (blocks, mine) in enumerate(zip(self._blocks, requests, strict=True)):
            sent[:] = content(self._seed, number, rank, sent.size)
            received[:] = 0
            self._group.barrier()
            if mine:
                repeat(mine, self._timeout)
            self._group.barrier()
            for sender, _, size, there, here in blocks[blocks[:, 1] == rank].tolist():
                expected = content(self._seed, number, sender, int(self._sizes[_SENT, sender]))
                count, where = compare(Placed(received, np.array([here])), Placed(expected, np.array([there])), size)
                wrong += count
                if where and not first:
                    first = f"pattern {number + 1}, from rank {sender} to rank {rank}: {where}"
        return wrong, first

    def result(self, engine: str) -> TrafficRun | None:
        """Return what was found so far by what engine; None if nothing was, or this is not rank 0."""
        if self._group.rank or not self._alone:
            return None
        among = np.array(self._among) if self._among else None
        return TrafficRun(
            engine=engine,
            transports=self._transports,
            iterations=len(self._among),
            isolated=self._traffic.isolated,
            patterns=tuple(
                _summarise(pattern, alone, None if among is None else among[:, number])
                for number, (pattern, alone) in enumerate(zip(self._traffic.patterns, self._alone, strict=False))
            ),
            wrong=sum(outcome.wrong for outcome in self._checked) if self._is_checked else None,
            first_wrong=next((outcome.first for outcome in self._checked if outcome.first), ""),
            is_complete=len(self._among) == self._traffic.iterations,
        )


def _summarise(pattern: Pattern, alone: NDArray[np.float64], among: NDArray[np.float64] | None) -> PatternTime:
    """Return what a pattern took, from its times in microseconds."""
    average = None if among is None else float(among.mean())
    median = None if among is None else float(np.median(among))
    return PatternTime(
        bytes=pattern.total_bytes,
        senders=pattern.senders,
        latency_avg_us=average,
        latency_p50_us=median,
        latency_p99_us=None if among is None else float(np.percentile(among, 99)),
        isolated_avg_us=float(alone.mean()),
        isolated_p50_us=float(np.median(alone)),
        isolated_p99_us=float(np.percentile(alone, 99)),
        slowdown=None if median is None else median / float(np.median(alone)),
        bandwidth_gb_s=None if average is None else pattern.total_bytes / average / 1e3,
    )


def _links(pattern: Pattern, blocks: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return initiator and target of each of a pattern's blocks."""
    pairs = blocks[:, :2] if pattern.op_type == "WRITE" else blocks[:, 1::-1]
    return [(initiator, target) for initiator, target in pairs.tolist()]
