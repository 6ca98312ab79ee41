"""Moving patterns of traffic, each alone and then one after the other, and what that took."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from trunkline.backend.contract import Operation
from trunkline.bench.kv.verification import Placed, compare, content
from trunkline.bench.participant import Blocks, Participant, repeat

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

    A latency is that of the rank that took longest, from the beginning of posting until its last block was there.

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
    latency_avg_us: float
    latency_p50_us: float
    latency_p99_us: float
    isolated_avg_us: float
    isolated_p50_us: float
    isolated_p99_us: float
    slowdown: float
    bandwidth_gb_s: float


class TrafficRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found: the JSON document.

    Attributes:
        engine: What moved the bytes.
        transports: What carried them, for each pair of ranks that moved some: ``initiator-target``.
        iterations: How often all patterns were run.
        isolated: How often each was run alone.
        patterns: In the order of the file.
        wrong: Blocks that did not hold what they should; None where that was not checked.
        first_wrong: Where the first of them differs, in words.
        format: Which schema this follows.
    """

    engine: str
    transports: dict[str, str]
    iterations: int
    isolated: int
    patterns: tuple[PatternTime, ...]
    wrong: int | None
    first_wrong: str = ""
    format: Literal["trunkline-bench-traffic/1"] = "trunkline-bench-traffic/1"


class _Outcome(msgspec.Struct, frozen=True):
    """What one rank tells the first: by pattern its times in nanoseconds; none where it posts nothing."""

    alone: tuple[tuple[int, ...], ...]
    among: tuple[tuple[int, ...], ...]
    wrong: int
    first: str


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

    def run(
        self,
        engine: Engine,
        name: str,
        *,
        introduce: Callable[[dict[str, str]], None] = lambda _: None,
        progress: Callable[[int, int], None] = lambda _, __: None,
    ) -> TrafficRun | None:
        """Move all patterns.

        Args:
            engine: This rank's; it is not closed.
            name: What it is called.
            introduce: Told before anything is moved what carries the bytes of each pair; at rank 0.
            progress: Told how many of how many rounds were made, those alone among them.

        Returns:
            What the run found at rank 0, None elsewhere.

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
        if rank == 0:
            introduce(participant.transports)
        requests = [self._requests(participant, engine, number) for number in range(len(patterns))]
        wrong, first = self._verify(participant, requests) if self._is_checked else (0, "")
        rounds = len(patterns) + self._traffic.iterations
        alone = []
        for number, mine in enumerate(requests):
            alone.append(self._run_alone(mine))
            progress(number + 1, rounds)
        among: list[list[int]] = [[] for _ in patterns]
        for number in range(self._traffic.iterations):
            self._run_among(requests, among)
            progress(len(patterns) + number + 1, rounds)
        outcome = _Outcome(tuple(alone), tuple(tuple(each) for each in among), wrong, first)
        outcomes = self._group.gather(msgspec.msgpack.encode(outcome), timeout=self._patience)
        self._group.barrier()  # nobody takes memory back that others may still use
        if outcomes is None:
            return None
        return self._summarise(engine.name, participant.transports, [_OUTCOME.decode(each) for each in outcomes])

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

    def _run_among(self, requests: Sequence[Sequence[Request]], times: list[list[int]]) -> None:
        """Run all patterns once; those that share no initiator overlap."""
        self._group.barrier(timeout=self._patience)
        for pattern, blocks, mine, found in zip(self._traffic.patterns, self._blocks, requests, times, strict=True):
            if not mine:
                continue
            initiators = sorted({initiator for initiator, _ in _links(pattern, blocks)})
            self._group.barrier(timeout=self._patience, ranks=initiators)
            if pattern.sleep:
                self._sleep(pattern.sleep)
            found.append(repeat(mine, self._timeout))

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
        self._group.barrier()  # nobody overwrites what others still compare
        return wrong, first

    def _summarise(self, engine: str, transports: dict[str, str], outcomes: Sequence[_Outcome]) -> TrafficRun:
        found = []
        for number, pattern in enumerate(self._traffic.patterns):
            among, alone = (
                np.max([times[number] for times in those if times[number]], axis=0) / 1e3
                for those in ([each.among for each in outcomes], [each.alone for each in outcomes])
            )
            found.append(
                PatternTime(
                    bytes=pattern.total_bytes,
                    senders=pattern.senders,
                    latency_avg_us=float(among.mean()),
                    latency_p50_us=float(np.percentile(among, 50)),
                    latency_p99_us=float(np.percentile(among, 99)),
                    isolated_avg_us=float(alone.mean()),
                    isolated_p50_us=float(np.percentile(alone, 50)),
                    isolated_p99_us=float(np.percentile(alone, 99)),
                    slowdown=float(np.percentile(among, 50) / np.percentile(alone, 50)),
                    bandwidth_gb_s=pattern.total_bytes / float(among.mean()) / 1e3,
                )
            )
        return TrafficRun(
            engine=engine,
            transports=transports,
            iterations=self._traffic.iterations,
            isolated=self._traffic.isolated,
            patterns=tuple(found),
            wrong=sum(outcome.wrong for outcome in outcomes) if self._is_checked else None,
            first_wrong=next((outcome.first for outcome in outcomes if outcome.first), ""),
        )


def _links(pattern: Pattern, blocks: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return initiator and target of each of a pattern's blocks."""
    pairs = blocks[:, :2] if pattern.op_type == "WRITE" else blocks[:, 1::-1]
    return [(initiator, target) for initiator, target in pairs.tolist()]
