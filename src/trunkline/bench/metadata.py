"""The exchange of metadata: how long it takes to register memory, to publish it, and until a peer has loaded it.

The first worker of each engine registers and publishes again and again; the second waits for it each time, loads it,
and says so by a notification.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from trunkline.bench.plan import plan_steps
from trunkline.bench.result import Row
from trunkline.bench.roles import assign_roles
from trunkline.bench.statistics import Readings, mean, percentile
from trunkline.bench.team import Link, decode_all, decode_introductions, introduce
from trunkline.bench.worker import ROUNDS
from trunkline.memory.descriptor import DescriptorList
from trunkline.memory.kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.engine.metadata import MetadataEngine
    from trunkline.bench.options import Options
    from trunkline.bench.plan import Step
    from trunkline.bench.worker import Listener

_now = time.perf_counter_ns


class _Outcome(msgspec.Struct, frozen=True):
    """What one worker found.

    Attributes:
        readings: Of each part of the exchange, round by round.
        size: Bytes of the metadata; 0 of who has not published.
    """

    readings: dict[str, tuple[Readings, ...]]
    size: int = 0


_OUTCOME = msgspec.msgpack.Decoder(_Outcome)


class MetadataWorker:
    """One of an engine's two workers. Not for several threads at once.

    Args:
        group: All.
        options: What is to be done: ``batch`` memory regions of ``block`` bytes each.
        open_engine: Opens this worker's engine, by its kind and name.
        listener: Who is told how it goes.
    """

    def __init__(
        self,
        group: Coordinator,
        options: Options,
        open_engine: Callable[[str, str], MetadataEngine],
        listener: Listener,
    ) -> None:
        self._group = group
        self._options = options
        self._open_engine = open_engine
        self._listener = listener
        self._roles = assign_roles(options)
        self._kind, self._ranks = self._roles.team_of(group.rank)
        self._is_publisher = group.rank == self._ranks[0]
        self._publisher = f"bench-{self._ranks[0]}"

    def run(self) -> None:
        """Do all of it.

        Raises:
            TrunklineError: A worker was lost, or a store or backend failed.
        """
        introductions = decode_introductions(self._group.allgather(introduce(self._group.rank, self._options)))
        engine = self._open_engine(self._kind, f"bench-{self._group.rank}")
        try:
            links = [Link(*pair, "metadata through the store") for pair in self._roles.pairs]
            self._listener.introduced(self._group.rank, introductions, self._roles, links)
            steps = plan_steps(self._options)
            for step in steps:
                self._listener.stepping(step, len(steps))
                self._run_step(engine, step)
        finally:
            engine.close()

    def _run_step(self, engine: MetadataEngine, step: Step) -> None:
        rounds = ROUNDS if len(self._roles.teams) > 1 else 1
        count = -(-step.iterations // rounds)
        regions = Regions(step)
        found: list[dict[str, Readings]] = []

        def exchange(turn: int) -> None:
            warmup = 0 if turn else step.warmup
            if self._is_publisher:
                found.append(self._publish(engine, regions.descriptors, warmup, count))
            else:
                self._load_published(engine, warmup + count)

        self._in_turn(engine, rounds, exchange)
        engine.register(regions.descriptors)
        data = self._group.allgather(engine.encode() if self._is_publisher else b"")[self._ranks[0]]
        if not self._is_publisher:
            self._in_turn(engine, rounds, lambda _: found.append(self._load(engine, data, count)))
        else:
            self._in_turn(engine, rounds, lambda _: None)
        engine.deregister(regions.descriptors)
        readings = {name: tuple(each[name] for each in found) for name in found[0]}
        outcome = _Outcome(readings, len(data))
        outcomes = self._group.gather(msgspec.msgpack.encode(outcome))
        if outcomes is not None:
            self._report(step, decode_all(_OUTCOME, outcomes, "an outcome"))

    def _in_turn(self, engine: MetadataEngine, rounds: int, work: Callable[[int], None]) -> None:
        """Let the teams do something in turn, this worker's among them."""
        teams = self._roles.teams
        for turn in range(rounds):
            for _, ranks in teams:
                is_its_turn = self._group.rank in ranks
                if len(teams) > 1:
                    (engine.wake if is_its_turn else engine.rest)()
                self._group.barrier()
                if is_its_turn:
                    work(turn)
                self._group.barrier()  # the others stay at rest until then

    def _publish(self, engine: MetadataEngine, regions: DescriptorList, warmup: int, count: int) -> dict[str, Readings]:
        names = ["REGISTER", "ENCODE", *(["PUBLISH"] if engine.is_published_at_once else []), "EXCHANGE"]
        times: dict[str, list[int]] = {name: [] for name in names}
        for number in range(warmup + count):
            self._group.barrier(ranks=self._ranks)  # the other one has forgotten the last time
            began = _now()
            engine.register(regions)
            registered = _now()
            engine.encode()
            encoded = _now()
            engine.publish()
            published = _now()
            engine.wait_notification(self._options.timeout)
            loaded = _now()
            self._group.barrier(ranks=self._ranks)
            engine.withdraw()
            engine.deregister(regions)
            taken = {
                "REGISTER": registered - began,
                "ENCODE": encoded - registered,
                "PUBLISH": published - encoded,
                "EXCHANGE": loaded - encoded,
            }
            if number >= warmup:
                for name in names:
                    times[name].append(taken[name])
        return {name: Readings.of(np.array(those, np.int64)) for name, those in times.items()}

    def _load_published(self, engine: MetadataEngine, count: int) -> None:
        for _ in range(count):
            self._group.barrier(ranks=self._ranks)
            engine.fetch(self._publisher, self._options.timeout)
            engine.notify(self._publisher, b"loaded")
            self._group.barrier(ranks=self._ranks)  # unloaded before it has arrived, the notification would be lost
            engine.forget(self._publisher)

    def _load(self, engine: MetadataEngine, data: bytes, count: int) -> dict[str, Readings]:
        times = []
        for _ in range(count):
            began = _now()
            engine.load(data)
            times.append(_now() - began)
            engine.unload(self._publisher)
        return {"LOAD": Readings.of(np.array(times, np.int64))}

    def _report(self, step: Step, outcomes: Sequence[_Outcome]) -> None:
        teams = self._roles.teams
        found = [
            {name: those for rank in ranks for name, those in outcomes[rank].readings.items()} for _, ranks in teams
        ]
        for (kind, ranks), readings in zip(teams, found, strict=True):
            for name, those in readings.items():
                self._listener.measured(self._row(step, kind, name, outcomes[ranks[0]].size, those))
        if len(teams) > 1:
            self._listener.note(_compare(step, [kind for kind, _ in teams], found))

    def _row(self, step: Step, kind: str, name: str, size: int, those: Sequence[Readings]) -> Row:
        average = mean(those) or 0.0
        return Row(
            engine=kind,
            backend=self._options.backend,
            transport="etcd" if name in ("PUBLISH", "EXCHANGE") else "none",
            op_type=name,
            scheme="pairwise",
            mode="SG",
            initiator_seg_type="DRAM",
            target_seg_type="DRAM",
            pairs=1,
            num_threads=1,
            pipeline_depth=1,
            block_size=step.block_size,
            batch_size=step.batch_size,
            iterations=sum(each.count for each in those),
            bandwidth_gb_s=size / max(average, 1e-9) / 1e3,
            latency_avg_us=average,
            latency_p50_us=percentile(those, 50),
            latency_p90_us=percentile(those, 90),
            latency_p99_us=percentile(those, 99),
            latency_p99_9_us=percentile(those, 99.9),
        )


class Regions:
    """Memory to register, one region beside the other.

    Args:
        step: How many, and how large.

    Attributes:
        descriptors: They.
    """

    def __init__(self, step: Step) -> None:
        self._memory = np.ones(step.transfer_size, np.uint8)  # held while they are registered
        starts = self._memory.ctypes.data + np.arange(step.batch_size) * step.block_size
        rows = np.stack([starts, np.full_like(starts, step.block_size), np.zeros_like(starts)], axis=1)
        self.descriptors = DescriptorList.of(MemoryKind.DRAM, rows)


def _compare(step: Step, kinds: Sequence[str], found: Sequence[Mapping[str, Sequence[Readings]]]) -> str:
    """Return in words how the first engine's times relate to the second's, round by round."""
    first, second = found
    told = []
    for name in first:
        if name in second:
            medians = [np.array([percentile([each], 50) or 0.0 for each in those[name]], np.float64) for those in found]
            ratios = medians[0] / np.maximum(medians[1], 1e-3)
            told.append(f"{name} {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})")
    regions = f"{step.batch_size:,} region{'s' if step.batch_size > 1 else ''} of {step.block_size:,} B"
    return (
        f"{regions}: median time of {kinds[0]} / {kinds[1]}: {', '.join(told)} (median of {len(first['EXCHANGE'])} "
        "rounds in turn, least to greatest)"
    )
