"""``trunkline bench kvcache``: how large KV caches are, and in which blocks they move."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trunkline.bench.kv.access import Access, OpType
from trunkline.cli.option import AsJson  # noqa: TC001 - typer reads the annotations
from trunkline.cli.table import print_table, size

if TYPE_CHECKING:
    from trunkline.bench.kv.configuration import RunShape
    from trunkline.bench.kv.request import Lengths
    from trunkline.bench.kv.sizes import CacheSizes, RankSize

Model = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="The model: its name (a wrong one lists them), the config.json it was published with, or KVBench's YAML.",
    ),
]
ModelConfig = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="KVBench's YAML of a run: splits, lengths, pages; other options win over it."),
]
Tp = Annotated[int | None, typer.Option(min=1, help="Tensor parallelism of the prefill ranks; default 1.")]
Pp = Annotated[int | None, typer.Option(min=1, help="Pipeline parallelism of the prefill ranks; default 1.")]
DecodeTp = Annotated[int | None, typer.Option(min=1, help="Tensor parallelism of the decode ranks; default --tp.")]
DecodePp = Annotated[int | None, typer.Option(min=1, help="Pipeline parallelism of the decode ranks; default --pp.")]
_LENGTHS = "TOKENS, uniform:LEAST:MOST or lognormal:MEDIAN:SIGMA"
Isl = Annotated[str | None, typer.Option(metavar="LENGTHS", help=f"Tokens of the inputs: {_LENGTHS}; default 4096.")]
Osl = Annotated[str | None, typer.Option(metavar="LENGTHS", help="Tokens of the outputs, the same; default 512.")]
NumRequests = Annotated[int | None, typer.Option(min=1, help="How many requests; default 10, or all of a --trace.")]
Trace = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Take lengths from a trace instead: JSON lines or CSV, with columns as Mooncake's, Azure's or BurstGPT's.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="What random lengths, and the places of pages, are drawn from.")]
PageSize = Annotated[int | None, typer.Option(min=1, help="Tokens of a page; default 16.")]
AccessPattern = Annotated[
    Access | None,
    typer.Option(
        help="How a rank's cache lies in memory: a page's layers together (block), or each layer apart (layer); "
        "default layer."
    ),
]
Precision = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of the cache's elements, as fp8 or bf16; default the model's.")
]
Direction = Annotated[
    OpType, typer.Option(case_sensitive=False, help="WRITE: prefill ranks write; READ: decode ranks read.")
]


def kvcache(
    *,
    model: Model,
    model_config: ModelConfig = None,
    tp: Tp = None,
    pp: Pp = None,
    decode_tp: DecodeTp = None,
    decode_pp: DecodePp = None,
    isl: Isl = None,
    osl: Osl = None,
    num_requests: NumRequests = None,
    trace: Trace = None,
    seed: Seed = 0,
    page_size: PageSize = None,
    access_pattern: AccessPattern = None,
    precision: Precision = None,
    op_type: Direction = "WRITE",
    as_json: AsJson = False,
) -> None:
    """Print how large a model's KV cache is: of a token, a page, a request, a rank; and in which blocks it moves.

    Nothing is moved. Prefill ranks are numbered first, decode ranks after them.
    """
    import msgspec

    from trunkline.bench.kv.model import find_model
    from trunkline.bench.kv.sizes import measure_sizes

    given = {
        "tp": tp,
        "pp": pp,
        "decode_tp": decode_tp,
        "decode_pp": decode_pp,
        "isl": isl,
        "osl": osl,
        "num_requests": num_requests,
        "page_size": page_size,
        "access_pattern": access_pattern,
        "precision": precision,
    }
    run = run_shape(model_config, given)
    plan = run.plan(find_model(model))
    sizes = measure_sizes(plan, find_lengths(run, trace, num_requests, seed), op_type)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(sizes), indent=2))
        return
    _print_sizes(sizes)


def run_shape(model_config: Path | None, given: dict[str, Any]) -> RunShape:
    """Return the settings of a run: what was given wins over the file, the file over the defaults."""
    from trunkline.bench.kv.configuration import RunShape, read_run_shape

    fields = read_run_shape(model_config) if model_config is not None else {}
    return RunShape(**{**fields, **{name: value for name, value in given.items() if value is not None}})


def find_lengths(run: RunShape, trace: Path | None, num_requests: int | None, seed: int) -> Lengths:
    """Return the requests' lengths, from a trace if one was given."""
    from trunkline.bench.kv.request import draw_lengths, read_trace

    if trace is not None:
        return read_trace(trace, num_requests)
    return draw_lengths(run.isl, run.osl, run.num_requests, seed=seed)


def _print_sizes(sizes: CacheSizes) -> None:
    print_table(
        ("CACHE OF", "TOKENS", "PAGES", "SIZE"),
        [
            ("a token", "1", "", size(sizes.token_bytes)),
            ("a page", str(sizes.page_size), "1", size(sizes.page_bytes)),
            (
                "the longest input" if sizes.requests > 1 else "the input",
                str(sizes.longest_tokens),
                str(sizes.longest_pages),
                size(sizes.longest_bytes),
            ),
            (
                f"all {sizes.requests} inputs" if sizes.requests > 1 else "all inputs",
                str(sizes.input_tokens),
                str(sizes.cache_bytes // sizes.page_bytes),
                size(sizes.cache_bytes),
            ),
            ("what moves for them", "", "", size(sizes.moved_bytes)),
        ],
    )
    typer.echo()
    print_table(
        ("RANKS", "SIDE", "LAYERS", "KV HEADS", "A PAGE", "THE LONGEST INPUT"),
        [
            _rank_row(list(ranks))
            for _, ranks in groupby(sizes.ranks, lambda one: (one.side, one.layers, one.page_bytes))
        ],
    )
    typer.echo()
    print_table(
        ("INITIATOR", "TARGET", "BLOCK SIZE (B)", "BLOCKS", "SIZE"),
        [
            (str(flow.initiator), str(flow.target), str(flow.block_size), str(flow.count), size(flow.total_bytes))
            for flow in sizes.flows
        ],
    )


def _rank_row(ranks: list[RankSize]) -> tuple[str, ...]:
    first, last = ranks[0], ranks[-1]
    return (
        str(first.rank) if first is last else f"{first.rank}-{last.rank}",
        first.side,
        str(first.layers),
        str(first.kv_heads),
        size(first.page_bytes),
        size(first.request_bytes),
    )
