from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.bench.kv.model import ModelShape, known_models
from trunkline.bench.kv.plan import CachePlan, Flow, Side
from trunkline.bench.kv.split import Split
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trunkline.bench.kv.access import Access

LLAMA, DEEPSEEK = known_models()["llama-3.1-8b"], known_models()["deepseek-r1"]


@st.composite
def plans(draw: st.DrawFn) -> CachePlan:
    heads = draw(st.sampled_from([1, 2, 4, 6]))
    is_mla = heads == 1 and draw(st.booleans())
    fitting = [size for size in range(1, 13) if heads % size == 0 or size % heads == 0]
    shape = ModelShape(name="any", layers=draw(st.integers(1, 5)), kv_heads=heads, head_size=2, bits=8, is_mla=is_mla)
    splits = [Split(draw(st.sampled_from(fitting)), draw(st.integers(1, shape.layers))) for _ in range(2)]
    access: Access = draw(st.sampled_from(["block", "layer"]))
    return CachePlan(shape, *splits, page_size=draw(st.integers(1, 3)), access=access, pages=4)


def content(plan: CachePlan, side: Side, rank: int, names: NDArray[np.int64]) -> NDArray[np.int64]:
    """A rank's memory, byte by byte: who each is, by page, layer, part, head, and place in the head.

    Written down as nested arrays, not by the strides that the plan uses.
    """
    shares, shape = side.shares, plan.shape
    bytes_of_head = plan.page_size * shape.part_bytes
    layers = range(int(shares.first_layer[rank]), int(shares.first_layer[rank] + shares.layers[rank]))
    heads = range(int(shares.first_head[rank]), int(shares.first_head[rank]) + shares.heads)
    cube = np.array(
        [
            [
                [
                    [
                        [(((name * 8 + layer) * 2 + part) * 8 + head) * 64 + byte for byte in range(bytes_of_head)]
                        for head in heads
                    ]
                    for part in range(shape.parts)
                ]
                for layer in layers
            ]
            for name in names.tolist()
        ]
    )
    return (cube if plan.access == "block" else cube.swapaxes(0, 1)).reshape(-1)


@given(plans(), st.permutations(range(4)), st.permutations(range(4)), st.integers(1, 4))
def test_every_byte_arrives_where_it_belongs_and_once(
    plan: CachePlan, source_pages: list[int], sink_pages: list[int], count: int
) -> None:
    names_there, names_here = np.full(4, -1), np.full(4, -2)
    names_there[source_pages[:count]] = names_here[sink_pages[:count]] = np.arange(count)
    sources = [content(plan, plan.prefill, rank, names_there) for rank in range(len(plan.prefill.page_bytes))]
    wanted = [content(plan, plan.decode, rank, names_here) for rank in range(len(plan.decode.page_bytes))]
    sinks = [np.full(len(each), -1) for each in wanted]
    written = [np.zeros(len(each), int) for each in wanted]
    for flow, (source, sink) in enumerate(plan.pairs.tolist()):
        there, here = plan.offsets(flow, np.array(source_pages[:count]), np.array(sink_pages[:count]))
        assert len(there) == len(here) == plan.blocks_per_page[flow] * count
        for start, end in zip(there.tolist(), here.tolist(), strict=True):
            size = int(plan.block_size[flow])
            sinks[sink][end : end + size] = sources[source][start : start + size]
            written[sink][end : end + size] += 1
    for rank, expected in enumerate(wanted):
        of_request = expected >= 0
        assert written[rank].tolist() == of_request.astype(int).tolist()
        assert sinks[rank][of_request].tolist() == expected[of_request].tolist()


@given(plans(), st.integers(1, 100))
def test_a_request_moves_what_the_decode_ranks_hold_of_it(plan: CachePlan, tokens: int) -> None:
    pages = -(-tokens // plan.page_size)
    ranks = len(plan.prefill.page_bytes)
    for op_type in ("READ", "WRITE"):
        received = np.zeros(len(plan.decode.page_bytes), int)
        for flow in plan.flows(tokens, op_type):
            sink = (flow.initiator if op_type == "READ" else flow.target) - ranks
            received[sink] += flow.total_bytes
            assert flow.total_bytes == flow.block_size * flow.count
        assert received.tolist() == (plan.decode.page_bytes * pages).tolist()
    assert plan.page_bytes * pages == received.sum()


@given(plans())
def test_ranks_hold_the_whole_cache_as_often_as_it_is_replicated(plan: CachePlan) -> None:
    page = plan.shape.token_bytes * plan.page_size
    for side in (plan.prefill, plan.decode):
        assert side.page_bytes.sum() == page * side.shares.replicas


def test_equal_splits_move_each_rank_to_its_twin_in_whole_pages() -> None:
    plan = CachePlan(LLAMA, Split(2), Split(2), page_size=16, access="block")
    assert plan.flows(100, "WRITE") == [
        Flow(initiator=rank, target=2 + rank, block_size=1 << 20, count=7, total_bytes=7 << 20) for rank in range(2)
    ]


def test_layers_move_one_by_one() -> None:
    plan = CachePlan(LLAMA, Split(2), Split(2), page_size=16, access="layer")
    assert plan.flows(100, "READ")[1] == Flow(
        initiator=3, target=1, block_size=32 << 10, count=7 * 32, total_bytes=7 << 20
    )


def test_another_number_of_heads_moves_keys_and_values_apart() -> None:
    plan = CachePlan(LLAMA, Split(2), Split(4), page_size=16, access="block")
    assert plan.pairs.tolist() == [[0, 0], [0, 1], [1, 2], [1, 3]]
    assert plan.block_size.tolist() == [2 * 16 * 128 * 2] * 4
    assert plan.blocks_per_page.tolist() == [32 * 2] * 4


def test_other_stages_move_runs_of_layers() -> None:
    plan = CachePlan(DEEPSEEK, Split(1, 2), Split(1, 4), page_size=1, access="block")
    assert plan.pairs.tolist() == [[0, 0], [0, 1], [1, 2], [1, 3]]
    assert (plan.block_size // (576 * 2)).tolist() == [16, 15, 15, 15]
    assert plan.blocks_per_page.tolist() == [1] * 4


def test_replicas_share_the_load() -> None:
    plan = CachePlan(DEEPSEEK, Split(8), Split(4), page_size=64, access="block")
    assert plan.pairs.tolist() == [[0, 0], [2, 1], [4, 2], [6, 3]]
    plan = CachePlan(DEEPSEEK, Split(4), Split(2, 3), page_size=64, access="block")
    assert plan.pairs.tolist() == [[0, 0], [0, 4], [1, 2], [2, 1], [2, 5], [3, 3]]


@pytest.mark.parametrize("page_size", [0, -1, 1 << 21])
def test_pages_that_cannot_be(page_size: int) -> None:
    with pytest.raises(ConfigurationError, match=f"a page of {page_size} tokens"):
        CachePlan(LLAMA, Split(), Split(), page_size=page_size, access="block")
