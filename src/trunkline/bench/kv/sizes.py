"""How large caches are, and in which blocks they move: what can be said without moving any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from trunkline.bench.kv.access import Access, OpType  # noqa: TC001 - msgspec reads the annotations
from trunkline.bench.kv.plan import Flow  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from trunkline.bench.kv.plan import CachePlan, Side
    from trunkline.bench.kv.request import Lengths


class RankSize(msgspec.Struct, frozen=True, kw_only=True):
    """What one rank holds.

    Attributes:
        rank: Prefill ranks come first, decode ranks after them.
        side: Which it is.
        layers: How many it has of the model's.
        kv_heads: How many it has of the model's; 1 with MLA.
        page_bytes: Of one page.
        request_bytes: Of the longest request.
    """

    rank: int
    side: Literal["prefill", "decode"]
    layers: int
    kv_heads: int
    page_bytes: int
    request_bytes: int


class CacheSizes(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a workload: the JSON document.

    Attributes:
        model: Its name.
        is_mla: Whether it has multi-head latent attention.
        layers: Of the model.
        kv_heads: Of a layer; 1 with MLA.
        head_size: Elements of a key; with MLA of what is kept for all heads.
        bits: Of an element.
        page_size: Tokens of a page.
        access_pattern: How caches lie in memory.
        op_type: READ or WRITE.
        token_bytes: Of one token, in all layers and heads.
        page_bytes: Of one page.
        requests: How many.
        input_tokens: Of all requests.
        output_tokens: Of all requests.
        longest_tokens: Of the longest input.
        longest_pages: Of the same.
        longest_bytes: Of the same, in whole pages.
        cache_bytes: Of all inputs, in whole pages.
        moved_bytes: What moves for all inputs; more than that where decode ranks hold the same heads.
        ranks: What each rank holds.
        flows: What moves for the longest input.
        format: Which schema this follows.
    """

    model: str
    is_mla: bool
    layers: int
    kv_heads: int
    head_size: int
    bits: int
    page_size: int
    access_pattern: Access
    op_type: OpType
    token_bytes: int
    page_bytes: int
    requests: int
    input_tokens: int
    output_tokens: int
    longest_tokens: int
    longest_pages: int
    longest_bytes: int
    cache_bytes: int
    moved_bytes: int
    ranks: tuple[RankSize, ...]
    flows: tuple[Flow, ...]
    format: Literal["trunkline-kvcache/1"] = "trunkline-kvcache/1"


def measure_sizes(plan: CachePlan, lengths: Lengths, op_type: OpType) -> CacheSizes:
    """Return the sizes of some requests under a plan."""
    shape = plan.shape
    pages = plan.pages_of(lengths.inputs)
    longest = int(lengths.inputs.max())
    page_bytes = shape.token_bytes * plan.page_size
    return CacheSizes(
        model=shape.name,
        is_mla=shape.is_mla,
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        bits=shape.bits,
        page_size=plan.page_size,
        access_pattern=plan.access,
        op_type=op_type,
        token_bytes=shape.token_bytes,
        page_bytes=page_bytes,
        requests=len(pages),
        input_tokens=int(lengths.inputs.sum()),
        output_tokens=int(lengths.outputs.sum()),
        longest_tokens=longest,
        longest_pages=int(pages.max()),
        longest_bytes=int(pages.max()) * page_bytes,
        cache_bytes=int(pages.sum()) * page_bytes,
        moved_bytes=int(pages.sum()) * plan.page_bytes,
        ranks=_ranks(plan, int(pages.max())),
        flows=tuple(plan.flows(longest, op_type)),
    )


def _ranks(plan: CachePlan, pages: int) -> tuple[RankSize, ...]:
    sides: tuple[tuple[Literal["prefill", "decode"], Side], ...] = (("prefill", plan.prefill), ("decode", plan.decode))
    return tuple(
        RankSize(
            rank=rank + (0 if name == "prefill" else len(plan.prefill.page_bytes)),
            side=name,
            layers=layers,
            kv_heads=side.shares.heads,
            page_bytes=page_bytes,
            request_bytes=page_bytes * pages,
        )
        for name, side in sides
        for rank, (layers, page_bytes) in enumerate(
            zip(side.shares.layers.tolist(), side.page_bytes.tolist(), strict=True)
        )
    )
