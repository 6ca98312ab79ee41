"""Moving the caches of requests, one or several at once, and what that took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from trunkline.backend.contract import Operation
from trunkline.bench.kv.request import Lengths
from trunkline.bench.kv.sizes import CacheSizes, measure_sizes
from trunkline.bench.kv.verification import Placed, compare, content
from trunkline.bench.participant import Blocks, Participant, Times, move_all
from trunkline.bench.team import decode_all
from trunkline.errors import GroupError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.engine.contract import Engine, Request
    from trunkline.bench.kv.access import OpType
    from trunkline.bench.kv.plan import CachePlan


class RequestTime(msgspec.Struct, frozen=True, kw_only=True):
    """What moving one request's cache took.

    Attributes:
        input_tokens: Of the request.
        output_tokens: Of the request.
        bytes: That moved, over all ranks.
        latency_us: From the beginning of preparing until the last block was there, at the rank that took longest; of
            several at once, that also those that were started before it were there.
        prepare_us: Of that rank: finding the memory of the blocks and making the transfers.
        post_us: Of that rank: starting them.
        transfer_us: Of that rank: from the beginning of starting them to the end.
    """

    input_tokens: int
    output_tokens: int
    bytes: int
    latency_us: float
    prepare_us: float
    post_us: float
    transfer_us: float


class RequestRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found: the JSON document.

    Attributes:
        sizes: Of the workload.
        engine: What moved the bytes.
        transports: What carried them, for each pair of ranks that moved some: ``initiator-target``.
        concurrency: How many were moved at once.
        requests: In the order in which they were started.
        is_complete: Whether these are all; False where the run broke off.
        latency_avg_us: Of all requests.
        latency_p50_us: Of all requests.
        latency_p90_us: Of all requests.
        latency_p99_us: Of all requests.
        bandwidth_gb_s: All bytes by the time in which they were moved, in 10^9 bytes a second.
        input_tokens_per_s: Tokens whose cache was moved in a second.
        output_tokens_per_s: Tokens that the decode ranks may make in a second at most, if nothing but the moving
            of caches held them up; None if no request has outputs.
        wrong: Blocks that did not hold what they should; None where that was not checked.
        first_wrong: Where the first of them differs, in words.
        format: Which schema this follows.
    """

    sizes: CacheSizes
    engine: str
    transports: dict[str, str]
    concurrency: int
    requests: tuple[RequestTime, ...]
    latency_avg_us: float
    latency_p50_us: float
    latency_p90_us: float
    latency_p99_us: float
    bandwidth_gb_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float | None
    wrong: int | None
    first_wrong: str = ""
    is_complete: bool = True
    format: Literal["trunkline-bench-requests/1"] = "trunkline-bench-requests/1"


class _Outcome(msgspec.Struct, frozen=True):
    """What one rank tells the first of requests that were moved at once.

    Attributes:
        times: Of each, if it posted something.
        elapsed: Nanoseconds from the beginning of the first to the end of the last.
        wrong: Blocks that did not hold what they should.
        first: Where the first of them differs.
    """

    times: tuple[Times, ...] = ()
    elapsed: int = 0
    wrong: int = 0
    first: str = ""


_OUTCOME = msgspec.msgpack.Decoder(_Outcome)


class RequestWorker:
    """One rank of a run. Not for several threads at once.

    The pages of a request lie scattered in the ranks' memory, otherwise for each request.

    Args:
        group: All ranks: prefill ranks first, decode ranks after them; as many as the plan has.
        plan: How requests are moved; with memory for ``concurrency`` times as many pages as the longest request has.
        lengths: Of the requests.
        op_type: Who posts.
        seed: What the places of pages are drawn from.
        warmup: How often the first request, or those that are first at once, are moved before anything is measured.
        concurrency: How many are moved at once; the next begin when all of them are there.
        is_checked: Whether every block is compared on the side where it arrives.
        timeout: Seconds that finding a rank, and one request from then on when it is waited for, may take.
    """

    def __init__(
        self,
        group: Coordinator,
        plan: CachePlan,
        lengths: Lengths,
        *,
        op_type: OpType,
        seed: int = 0,
        warmup: int = 5,
        concurrency: int = 1,
        is_checked: bool = False,
        timeout: float = 60.0,
    ) -> None:
        self._group = group
        self._plan = plan
        self._lengths = lengths
        self._op_type: OpType = op_type
        self._seed = seed
        self._warmup = warmup
        self._concurrency = concurrency
        self._is_checked = is_checked
        self._timeout = timeout
        self._sizes = plan.rank_bytes
        first_decode = len(plan.prefill.page_bytes)
        sources, sinks = (plan.pairs + np.array([0, first_decode])).T
        self._initiators, self._targets = (sources, sinks) if op_type == "WRITE" else (sinks, sources)
        self._posted = np.flatnonzero(self._initiators == group.rank)
        self._received = np.flatnonzero(sinks == group.rank)
        self._sources = sources
        self._transports: dict[str, str] = {}
        self._outcomes: list[list[_Outcome]] = []

    def run(
        self,
        engine: Engine,
        name: str,
        *,
        introduce: Callable[[dict[str, str]], None] = lambda _: None,
        progress: Callable[[int, int], None] = lambda _, __: None,
    ) -> None:
        """Move all requests. Rank 0 has the results then, or of a run that broke off those until then.

        Args:
            engine: This rank's; it is not closed.
            name: What it is called.
            introduce: Told before anything is moved what carries the bytes of each pair; at rank 0.
            progress: Told how many of how many requests were moved.

        Raises:
            TrunklineError: A rank was lost or gave up, or a transfer failed.
        """
        participant = Participant(
            self._group,
            engine,
            name,
            sizes=[int(self._sizes[self._group.rank])],
            targets=self._targets[self._posted].tolist(),
            initiators=self._initiators[self._targets == self._group.rank].tolist(),
            timeout=self._timeout,
        )
        self._transports = participant.transports
        if self._group.rank == 0:
            introduce(self._transports)
        count = len(self._lengths.inputs)
        outcome: _Outcome | None = None
        for first in range(0, count, self._concurrency):
            numbers = range(first, min(first + self._concurrency, count))
            pages = [self._pages(number) for number in numbers]
            makers = [self._maker(participant, engine, each) for each in pages] if self._posted.size else []
            if first == 0:
                for _ in range(self._warmup):
                    move_all(makers, self._timeout)
            if self._is_checked:
                self._fill(participant, first)
            self._collect(outcome)
            outcome = _Outcome(*move_all(makers, self._timeout))
            if self._is_checked:
                self._group.barrier()
                outcome = _Outcome(outcome.times, outcome.elapsed, *self._check(participant, numbers, pages))
            progress(numbers.stop, count)
        self._collect(outcome)  # after it nobody uses another's memory

    def _collect(self, outcome: _Outcome | None) -> None:
        """Wait for all ranks, and at rank 0 keep what they found."""
        found = self._group.allgather(msgspec.msgpack.encode(outcome) if outcome is not None else b"")
        if outcome is None or self._group.rank:
            return
        outcomes = decode_all(_OUTCOME, found, "an outcome")
        counts = {len(each.times) for each in outcomes} - {0}
        if len(counts) != 1:
            raise GroupError(f"the ranks do not move the same requests at once: {sorted(counts)} of them")
        self._outcomes.append(outcomes)

    def _pages(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where a request's pages lie, on the prefill ranks and on the decode ranks; the same on all.

        Those that are moved at once have parts of the memory to themselves.
        """
        pages = self._plan.prefill.pages // self._concurrency
        count = int(self._plan.pages_of(self._lengths.inputs[number]))
        begin = number % self._concurrency * pages
        random = np.random.default_rng([self._seed, number])
        there, here = (begin + random.permutation(pages)[:count] for _ in range(2))
        return there, here

    def _maker(
        self, participant: Participant, engine: Engine, pages: tuple[NDArray[np.int64], NDArray[np.int64]]
    ) -> Callable[[], list[Request]]:
        operation = Operation[self._op_type]
        lookups = []
        for flow in self._posted.tolist():
            there, here = self._plan.offsets(flow, *pages)
            near, far = (there, here) if self._op_type == "WRITE" else (here, there)
            size = int(self._plan.block_size[flow])
            lookups.append(participant.match(int(self._targets[flow]), Blocks(0, near, size), Blocks(0, far, size)))
        return lambda: [engine.prepare(operation, look_up()) for look_up in lookups]

    def _fill(self, participant: Participant, number: int) -> None:
        (area,) = participant.areas
        if self._received.size:
            area[:] = 0
        else:
            area[:] = content(self._seed, number, self._group.rank, area.size)

    def _check(
        self,
        participant: Participant,
        numbers: Sequence[int],
        pages: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    ) -> tuple[int, str]:
        wrong, first = 0, ""
        for flow in self._received.tolist():
            source = int(self._sources[flow])
            memory = content(self._seed, numbers[0], source, int(self._sizes[source]))  # as large as all of the rank's
            for number, each in zip(numbers, pages, strict=True):
                there, here = self._plan.offsets(flow, *each)
                sent = Placed(memory, there)
                count, where = compare(Placed(participant.areas[0], here), sent, int(self._plan.block_size[flow]))
                wrong += count
                if where and not first:
                    first = f"request {number}, from rank {source} to rank {self._group.rank}: {where}"
        return wrong, first

    def result(self, engine: str) -> RequestRun | None:
        """Return what was found so far by what engine; None if no request was moved, or this is not rank 0."""
        if not self._outcomes:
            return None
        outcomes = [outcome for outcomes in self._outcomes for outcome in outcomes]
        times = [
            max(of_ranks, key=lambda one: one.latency)
            for each in self._outcomes
            for of_ranks in zip(*(outcome.times for outcome in each if outcome.times), strict=True)
        ]
        count = len(times)
        lengths = Lengths(self._lengths.inputs[:count], self._lengths.outputs[:count])
        latency = np.array([each.latency for each in times]) / 1e3
        moved = self._plan.pages_of(lengths.inputs) * self._plan.page_bytes
        seconds = sum(max(outcome.elapsed for outcome in each) for each in self._outcomes) / 1e9
        outputs = int(lengths.outputs.sum())
        p50, p90, p99 = (float(each) for each in np.percentile(latency, (50, 90, 99)))
        return RequestRun(
            sizes=measure_sizes(self._plan, self._lengths, self._op_type),
            engine=engine,
            transports=self._transports,
            concurrency=self._concurrency,
            requests=tuple(
                RequestTime(
                    input_tokens=tokens,
                    output_tokens=made,
                    bytes=size,
                    latency_us=each.latency / 1e3,
                    prepare_us=each.prepare / 1e3,
                    post_us=each.post / 1e3,
                    transfer_us=each.transfer / 1e3,
                )
                for tokens, made, size, each in zip(
                    lengths.inputs.tolist(), lengths.outputs.tolist(), moved.tolist(), times, strict=True
                )
            ),
            is_complete=count == len(self._lengths.inputs),
            latency_avg_us=float(latency.mean()),
            latency_p50_us=p50,
            latency_p90_us=p90,
            latency_p99_us=p99,
            bandwidth_gb_s=int(moved.sum()) / seconds / 1e9,
            input_tokens_per_s=int(lengths.inputs.sum()) / seconds,
            output_tokens_per_s=outputs / seconds if outputs else None,
            wrong=sum(outcome.wrong for outcome in outcomes) if self._is_checked else None,
            first_wrong=next((outcome.first for outcome in outcomes if outcome.first), ""),
        )
