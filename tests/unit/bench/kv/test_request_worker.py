from __future__ import annotations

import ctypes
import threading
import weakref
from threading import BrokenBarrierError, Event
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.unit.bench.kv.ranks import CopyEngine, Threads, run_ranks

from trunkline.bench.kv import request_worker
from trunkline.bench.kv.model import ModelShape
from trunkline.bench.kv.plan import CachePlan
from trunkline.bench.kv.request import Lengths
from trunkline.bench.kv.request_worker import RequestRun, RequestWorker, _Outcome
from trunkline.bench.kv.split import Split
from trunkline.bench.kv.verification import content
from trunkline.bench.participant import Times
from trunkline.errors import GroupError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.bench.kv.access import Access, OpType

GQA = ModelShape(name="small", layers=5, kv_heads=4, head_size=8, bits=16)
MLA = ModelShape(name="latent", layers=5, kv_heads=1, head_size=9, bits=8, is_mla=True)
TWO, FOUR = Split(2), Split(4)
LENGTHS = Lengths(np.array([7, 1, 30]), np.array([1, 2, 3]))


def run(
    shape: ModelShape = GQA,
    prefill: Split = TWO,
    decode: Split = FOUR,
    *,
    access: Access = "layer",
    op_type: OpType = "WRITE",
    concurrency: int = 1,
    is_checked: bool = True,
) -> tuple[RequestRun, list[CopyEngine]]:
    plan = CachePlan(shape, prefill, decode, page_size=4, access=access, pages=8 * concurrency)
    engines = [CopyEngine() for _ in range(prefill.ranks + decode.ranks)]

    def work(group: Threads) -> RequestRun | None:
        worker = RequestWorker(
            group, plan, LENGTHS, op_type=op_type, warmup=1, concurrency=concurrency, is_checked=is_checked
        )
        worker.run(engines[group.rank], f"rank-{group.rank}", introduce=introduced.append)
        return worker.result("copy")

    introduced: list[dict[str, str]] = []
    first, *others = run_ranks(len(engines), work)
    assert others == [None] * len(others)
    assert introduced == [first.transports]
    assert first.is_complete
    return first, engines


@pytest.mark.parametrize("concurrency", [1, 2, 3])
@pytest.mark.parametrize("op_type", ["READ", "WRITE"])
@pytest.mark.parametrize("access", ["block", "layer"])
@pytest.mark.parametrize(
    ("shape", "prefill", "decode"),
    [(GQA, Split(2), Split(4)), (GQA, Split(8, 2), Split(2, 3)), (MLA, Split(2, 2), Split(3)), (GQA, Split(), Split())],
)
def test_every_block_arrives(
    shape: ModelShape, prefill: Split, decode: Split, access: Access, op_type: OpType, concurrency: int
) -> None:
    found, _ = run(shape, prefill, decode, access=access, op_type=op_type, concurrency=concurrency)
    assert (found.wrong, found.first_wrong) == (0, "")
    assert [(each.input_tokens, each.output_tokens) for each in found.requests] == [(7, 1), (1, 2), (30, 3)]
    assert sum(each.bytes for each in found.requests) == found.sizes.moved_bytes
    assert set(found.transports.values()) == {"memmove"}
    assert len(found.transports) == len(found.sizes.flows)


def test_the_figures_follow_from_the_times() -> None:
    found, _ = run()
    latencies = [each.latency_us for each in found.requests]
    for each in found.requests:
        assert each.latency_us == pytest.approx(each.prepare_us + each.transfer_us)
        assert 0 <= each.post_us <= each.transfer_us
    assert found.latency_avg_us == pytest.approx(np.mean(latencies))
    assert found.latency_p50_us == pytest.approx(np.median(latencies))
    assert found.latency_p99_us <= max(latencies)
    assert found.input_tokens_per_s == pytest.approx(38 / sum(latencies) * 1e6)
    assert found.output_tokens_per_s == pytest.approx(6 / sum(latencies) * 1e6)
    assert found.bandwidth_gb_s == pytest.approx(found.sizes.moved_bytes / sum(latencies) / 1e3)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_byte_that_is_wrong_is_found(concurrency: int) -> None:
    plan = CachePlan(GQA, Split(), Split(), page_size=4, access="block", pages=8 * concurrency)

    def spoil(rows: list[list[int]]) -> None:
        byte = ctypes.c_uint8.from_address(rows[1][0] + 2)
        byte.value ^= 1

    def work(group: Threads) -> RequestRun | None:
        worker = RequestWorker(
            group, plan, LENGTHS, op_type="WRITE", warmup=0, concurrency=concurrency, is_checked=True
        )
        worker.run(CopyEngine(spoil), f"rank-{group.rank}")
        return worker.result("copy")

    found = run_ranks(2, work)[0]
    assert found.wrong == 1
    assert found.first_wrong.startswith(
        "request 0, from rank 0 to rank 1: block 1 of 2,560 bytes differs first at offset 2: "
    )


def test_checking_holds_the_memory_of_few_senders_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[NDArray[np.uint8]]] = []
    most = 0

    def watched(seed: int, step: int, rank: int, size: int) -> NDArray[np.uint8]:
        nonlocal most
        memory = content(seed, step, rank, size)
        if threading.current_thread().name == "sink":
            held.append(weakref.ref(memory))
            most = max(most, sum(each() is not None for each in held))
        return memory

    def work(group: Threads) -> None:
        if group.rank == 4:
            threading.current_thread().name = "sink"
        worker = RequestWorker(group, plan, LENGTHS, op_type="WRITE", warmup=0, concurrency=2, is_checked=True)
        worker.run(CopyEngine(), f"rank-{group.rank}")

    plan = CachePlan(GQA, Split(4), Split(), page_size=4, access="layer", pages=16)
    monkeypatch.setattr(request_worker, "content", watched)
    run_ranks(5, work)
    assert (len(held), most) == (2 * 4, 2)  # the next is made while the one before is still there


def test_nothing_is_said_of_what_was_not_checked() -> None:
    found, engines = run(is_checked=False)
    assert found.wrong is None
    blocks = found.sizes.flows[0].count // 8 * 2  # of a page, from one of two ranks
    assert [engine.copied for engine in engines[:2]] == [blocks * (2 + 2 + 1 + 8)] * 2
    assert [engine.copied for engine in engines[2:]] == [0] * 4


def test_a_request_takes_as_long_as_the_rank_that_takes_longest() -> None:
    plan = CachePlan(GQA, Split(2), Split(2), page_size=4, access="layer", pages=8)
    worker = run_ranks(4, lambda group: RequestWorker(group, plan, LENGTHS, op_type="WRITE"))[0]
    assert worker.result("copy") is None
    for one, other in (((1000, 2000, 9000), (5000, 1000, 4000)), ((100, 200, 300), (200, 100, 400))):
        posted = [_Outcome((Times(*times),), Times(*times).latency) for times in (one, other)]
        worker._outcomes.append([*posted, _Outcome(), _Outcome()])
    found = worker.result("copy")
    assert [each.latency_us for each in found.requests] == pytest.approx([10.0, 0.6])
    assert [each.prepare_us for each in found.requests] == pytest.approx([1.0, 0.2])
    assert [each.transfer_us for each in found.requests] == pytest.approx([9.0, 0.4])
    assert found.input_tokens_per_s == pytest.approx(8 / 10.6e-6)
    assert (found.wrong, found.is_complete) == (None, False)


def test_requests_that_are_moved_at_once_share_the_time() -> None:
    found, engines = run(concurrency=2, is_checked=False)
    assert found.concurrency == 2
    (first, second), third = found.requests[:2], found.requests[2]
    seconds = found.sizes.moved_bytes / found.bandwidth_gb_s / 1e9
    assert max(first.latency_us, second.latency_us) + third.latency_us <= seconds * 1e6 * 1.000001
    assert seconds * 1e6 <= (first.latency_us + second.latency_us + third.latency_us) * 1.000001
    assert found.input_tokens_per_s == pytest.approx(38 / seconds)
    blocks = found.sizes.flows[0].count // 8 * 2
    assert [engine.copied for engine in engines[:2]] == [blocks * (3 + 2 + 1 + 8)] * 2  # two to warm up


def test_ranks_that_do_not_move_the_same_at_once_are_told() -> None:
    plan = CachePlan(GQA, Split(2), Split(2), page_size=4, access="layer", pages=16)

    def work(group: Threads) -> None:
        concurrency = 2 if group.rank == 1 else 1
        worker = RequestWorker(group, plan, LENGTHS, op_type="WRITE", warmup=0, concurrency=concurrency)
        worker.run(CopyEngine(), f"rank-{group.rank}")

    with pytest.raises(GroupError, match=r"do not move the same requests at once: \[1, 2\]"):
        run_ranks(4, work)


def test_what_was_found_is_kept_when_a_rank_fails() -> None:
    plan = CachePlan(GQA, Split(), Split(), page_size=4, access="layer", pages=8)
    kept: list[RequestRun | None] = [None] * 2
    moved = Event()

    def work(group: Threads) -> None:
        worker = RequestWorker(group, plan, LENGTHS, op_type="WRITE", warmup=0)

        def fail(done: int, count: int) -> None:
            if done < count:
                return
            if group.rank == 1:
                assert moved.wait(30)
                raise ValueError
            moved.set()

        try:
            worker.run(CopyEngine(), f"rank-{group.rank}", progress=fail)
        finally:
            kept[group.rank] = worker.result("copy")

    with pytest.raises((ValueError, BrokenBarrierError)):
        run_ranks(2, work)
    assert kept[1] is None
    assert kept[0] is not None
    assert (len(kept[0].requests), kept[0].is_complete) == (2, False)
