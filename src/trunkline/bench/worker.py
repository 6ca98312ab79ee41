"""One worker of a run: it finds the others, moves blocks with them step by step, and at rank 0 keeps the results."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Protocol

from trunkline.backend.contract import Operation
from trunkline.bench.baseline import memcpy_gb_s
from trunkline.bench.consistency import Findings, Sender, check, clear, fill
from trunkline.bench.measure import Lane, Pace, measure
from trunkline.bench.memory import Buffers, Places
from trunkline.bench.notifications import RoundTrip, echo
from trunkline.bench.outcome import Outcome, decode_outcomes
from trunkline.bench.plan import plan_steps
from trunkline.bench.roles import assign_roles
from trunkline.bench.statistics import condense
from trunkline.bench.storage import Storage
from trunkline.bench.summary import compare_teams, summarise
from trunkline.bench.team import (
    Card,
    Introduction,
    Link,
    decode_cards,
    decode_introductions,
    decode_links,
    encode,
    introduce,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from trunkline.bench.bare import BareUcx
    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.engine.contract import Engine, Request
    from trunkline.bench.options import Options
    from trunkline.bench.plan import Step
    from trunkline.bench.result import Row
    from trunkline.bench.roles import Roles
    from trunkline.bench.statistics import Samples
    from trunkline.memory.descriptor import DescriptorList

ROUNDS = 5
"""In how many rounds engines are measured in turn where several are compared."""


class Listener(Protocol):
    """Who is told how a run goes, on every worker."""

    def introduced(self, rank: int, workers: list[Introduction], roles: Roles, links: list[Link]) -> None:
        """All workers are there, and know what carries their bytes; ``rank`` is this one's."""
        ...

    def stepping(self, step: Step, count: int) -> None:
        """A step begins, one of ``count``."""
        ...

    def measured(self, row: Row) -> None:
        """A row is there (at rank 0)."""
        ...

    def note(self, text: str) -> None:
        """Something to be said after the table (at rank 0)."""
        ...

    def warn(self, text: str) -> None:
        """Something that a reader of the results should know at once (at rank 0)."""
        ...


class Worker:
    """One worker. Not for several threads at once.

    Args:
        group: The workers of the run.
        options: What is to be done; checked by :func:`trunkline.bench.plan.check_options`.
        open_engine: Opens the engine of this worker by its kind and the agent's name.
        listener: Who is told how it goes.
    """

    def __init__(
        self,
        group: Coordinator,
        options: Options,
        open_engine: Callable[[str, str], Engine],
        listener: Listener,
    ) -> None:
        self._group = group
        self._options = options
        self._open_engine = open_engine
        self._listener = listener
        self._roles = assign_roles(options)
        self._steps = plan_steps(options)
        self._rank = group.rank
        self._targets = self._roles.targets_of(group.rank)
        self._initiators = self._roles.initiators_of(group.rank)
        self._depth = options.num_threads * options.pipeline_depth
        self._operation = Operation[options.op_type]
        largest = max(step.transfer_size for step in self._steps)
        near, far = options.buffers
        self._near = Buffers(near, len(self._targets) * self._depth, largest, huge=options.use_hugepages)
        self._storage = Storage(options, self._depth, largest) if options.is_storage else None
        lanes = 0 if self._storage else len(self._initiators) * self._depth
        self._far = Buffers(far, lanes, largest, huge=options.use_hugepages)
        self._cards: list[Card] = []
        self._links: list[Link] = []
        self._engine: Engine | None = None
        self._bare: BareUcx | None = None

    def run(self) -> None:
        """Do all of it.

        Raises:
            ConfigurationError: Workers want different things.
            TrunklineError: A worker was lost or gave up, or a transfer failed.
        """
        introductions = decode_introductions(self._group.allgather(introduce(self._rank, self._options)))
        kind, _ = self._roles.team_of(self._rank)
        name = f"bench-{self._rank}"
        self._engine = self._open_engine(kind, name)
        try:
            self._meet(self._engine, name)
            self._listener.introduced(self._rank, introductions, self._roles, self._links)
            for step in self._steps:
                self._listener.stepping(step, len(self._steps))
                self._run_step(self._engine, step)
            self._group.barrier()  # nobody takes memory back that others may still use
        finally:
            if self._bare is not None:
                self._bare.close()
            self._engine.close()
            if self._storage is not None:
                self._storage.close()

    def _meet(self, engine: Engine, name: str) -> None:
        timeout = self._options.timeout
        is_registered_later = self._options.reregister_mem
        for buffers in (self._far,) if is_registered_later else (self._near, self._far):
            if buffers.lanes:
                engine.register(buffers.descriptors)
        if self._storage is not None:
            self._storage.register(engine)
        card = Card(agent=name, handed=engine.publish(), addresses=tuple(self._far.addresses))
        for lane in range(self._near.lanes if is_registered_later else 0):
            engine.register(self._near.lane(lane))  # unpublished, so that taking it back is nobody else's concern
        self._cards = decode_cards(self._group.allgather(encode(card)))
        for rank in dict.fromkeys([*self._targets, *self._initiators]):
            engine.load(self._cards[rank].agent, self._cards[rank].handed, timeout)
        links = [Link(self._rank, rank, engine.transport(self._cards[rank].agent)) for rank in self._targets]
        self._links = decode_links(self._group.allgather(encode(links)))
        if self._options.limit == "ucx":
            from trunkline.bench.bare import BareUcx

            self._bare = BareUcx(self._group, self._options, self._roles, self._near, self._far)

    # -- one step ----------------------------------------------------------------------------------------------

    def _run_step(self, engine: Engine, step: Step) -> None:
        options = self._options
        if self._storage is not None:
            self._storage.begin(engine, step)
        if options.check_consistency:
            self._write_patterns(step)
        if self._storage is not None and self._operation is Operation.READ:
            self._exchange(engine, step, Operation.WRITE)  # so that there is something to read
            if options.check_consistency:
                self._clear(step)
        rounds = self._measure(engine, step)
        findings = Findings()
        if options.check_consistency:
            self._group.barrier()
            findings = self._check_patterns(engine, step)
        moved = self._part(step) * step.batch_size * len(self._targets)
        outcome = Outcome(condense(rounds, moved) if rounds else None, findings.wrong, findings.first)
        limit = self._limit(step) if self._rank == 0 else None  # while the others wait for it
        outcomes = self._group.gather(encode(outcome))
        if outcomes is not None:
            self._report(step, decode_outcomes(outcomes), limit)

    def _measure(self, engine: Engine, step: Step) -> list[Samples]:
        """Measure the teams in turn, this worker's among them."""
        options, teams = self._options, self._roles.teams
        pace = Pace(options.recreate_xfer or options.reregister_mem, options.rate, options.timeout)
        rounds = self._rounds
        threads = self._lanes(engine, step) if self._targets else []
        count = self._count(step)
        found: list[Samples] = []
        for turn in range(rounds):
            for _, ranks in teams:
                is_its_turn = self._rank in ranks
                if len(teams) > 1:
                    (engine.wake if is_its_turn else engine.rest)()
                self._group.barrier()
                if step.warmup and turn == 0:
                    if is_its_turn:
                        self._move(engine, threads, step.warmup, pace._replace(rate=0.0))
                    self._group.barrier()  # nobody is measured while others still warm up
                if is_its_turn:
                    found += self._move(engine, threads, count, pace)
                if len(teams) > 1:
                    self._group.barrier()
        if len(teams) > 1:
            engine.rest()  # what bandwidth is compared with is measured next
        return found

    def _move(self, engine: Engine, threads: list[list[Lane]], count: int, pace: Pace) -> list[Samples]:
        """Make so many transfers on each thread, or be the other side of them."""
        if threads:
            return [measure(threads, count, pace)]
        if self._options.workload == "notifications":
            echo(engine, self._cards[self._initiators[0]].agent, count, pace.timeout)
        return []

    def _lanes(self, engine: Engine, step: Step) -> list[list[Lane]]:
        return [[self._lane(engine, step, number) for number in thread] for thread in self._numbers(step)]

    @property
    def _rounds(self) -> int:
        return ROUNDS if len(self._roles.teams) > 1 else 1

    def _count(self, step: Step) -> int:
        """How many transfers each thread makes in a round."""
        return -(-step.iterations // self._rounds)

    def _numbers(self, step: Step) -> list[range]:
        """Return each thread's lanes: no more than it makes transfers, so that every one is used."""
        depth = self._options.pipeline_depth
        used = min(depth, self._count(step))
        return [range(thread * depth, thread * depth + used) for thread in range(self._options.num_threads)]

    def _lane(self, engine: Engine, step: Step, lane: int) -> Lane:
        if self._options.workload == "notifications":
            peers = [self._cards[rank].agent for rank in self._targets]
            return Lane(lambda: [RoundTrip(engine, peer, step.transfer_size) for peer in peers])

        def make() -> list[Request]:
            if self._options.reregister_mem:
                self._reregister(engine, lane)
            return [engine.prepare(self._operation, engine.match(*each)) for each in self._sides(step, lane)]

        if not self._options.prepared_xfer:
            return Lane(make)
        matched = [engine.match(*each) for each in self._sides(step, lane)]
        return Lane(lambda: [engine.prepare(self._operation, sides) for sides in matched])

    def _reregister(self, engine: Engine, lane: int) -> None:
        for number in range(len(self._targets)):
            its = self._near.lane(number * self._depth + lane)
            engine.deregister(its)
            engine.register(its)

    def _sides(self, step: Step, lane: int) -> Iterator[tuple[str, DescriptorList, DescriptorList]]:
        """Yield for each target its agent, and the blocks of both sides."""
        size = self._part(step)
        for number, rank in enumerate(self._targets):
            near = self._near.places.descriptors(number * self._depth + lane, size, step.batch_size)
            if self._storage is not None:
                far = self._storage.descriptors(lane, step)
            else:
                addresses = self._cards[rank].addresses
                place = self._roles.initiators_of(rank).index(self._rank) * self._depth + lane
                places = Places(addresses, [0] * len(addresses), self._near.span)
                far = places.descriptors(place, size, step.batch_size)
            yield self._cards[rank].agent, near, far

    def _part(self, step: Step) -> int:
        """Bytes of a block that go to one target."""
        return step.block_size // self._roles.parts

    # -- consistency -------------------------------------------------------------------------------------------

    def _write_patterns(self, step: Step) -> None:
        """Fill what is sent, and make what is received differ from it."""
        for sender, blocks, is_source in self._blocks(step):
            (fill if is_source or self._storage else clear)(sender, blocks)

    def _clear(self, step: Step) -> None:
        for sender, blocks, _ in self._blocks(step):
            clear(sender, blocks)

    def _check_patterns(self, engine: Engine, step: Step) -> Findings:
        if self._storage is not None and self._operation is Operation.WRITE:
            self._clear(step)
            self._exchange(engine, step, Operation.READ)
        received = [
            check(sender, blocks)
            for sender, blocks, is_source in self._blocks(step)
            if self._storage is not None or not is_source
        ]
        return Findings(sum(each.wrong for each in received), next((each.first for each in received if each.first), ""))

    def _blocks(self, step: Step) -> Iterator[tuple[Sender, list[NDArray[np.uint8]], bool]]:
        """Yield the blocks of every lane on both sides, and whether they are sent from here."""
        size, seed = self._part(step), self._options.seed
        is_write = self._operation is Operation.WRITE
        for buffers, peers, is_source in (
            (self._near, self._targets, is_write),
            (self._far, self._initiators, not is_write),
        ):
            for number, rank in enumerate(peers if buffers.lanes else ()):
                source, sink = (self._rank, rank) if is_source else (rank, self._rank)
                for lane in chain(*self._numbers(step)):
                    blocks = buffers.blocks(number * self._depth + lane, size, step.batch_size)
                    yield Sender(seed, step.number, source, sink, lane), blocks, is_source

    def _exchange(self, engine: Engine, step: Step, operation: Operation) -> None:
        """Move every lane once, for the sake of its contents."""
        for lane in chain(*self._numbers(step)):
            for sides in self._sides(step, lane):
                request = engine.prepare(operation, engine.match(*sides))
                request.post()
                request.wait(self._options.timeout)

    # -- results -----------------------------------------------------------------------------------------------

    def _limit(self, step: Step) -> float | None:
        """What bandwidth is compared with, in 10^9 bytes a second; that of notifications with nothing."""
        if self._options.workload != "sweep":
            return None
        if self._bare is not None:
            return self._bare.gb_s(step)
        return self._options.limit_gbps or memcpy_gb_s(step.transfer_size)

    def _report(self, step: Step, outcomes: list[Outcome], limit: float | None) -> None:
        for kind, ranks in self._roles.teams:
            those = [outcomes[rank] for rank in ranks]
            row = summarise(self._options, self._roles, self._links, step, kind, those, limit)
            self._listener.measured(row)
            for each in those:
                if each.first:
                    self._listener.warn(f"wrong bytes: {each.first}")
        if len(self._roles.teams) > 1:
            self._listener.note(compare_teams(self._roles, step, outcomes))
