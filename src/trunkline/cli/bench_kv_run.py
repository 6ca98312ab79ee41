"""``trunkline bench requests`` and ``traffic``: KV-cache workloads, moved."""

from __future__ import annotations

import dataclasses
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trunkline.cli.bench_kv import (  # noqa: TC001 - typer reads the annotations
    AccessPattern,
    DecodePp,
    DecodeTp,
    Isl,
    Model,
    ModelConfig,
    NumRequests,
    Osl,
    PageSize,
    Pp,
    Precision,
    Tp,
    Trace,
)
from trunkline.cli.bench_option import add_settings
from trunkline.cli.bench_ranks import SHARED, run_ranks
from trunkline.cli.progress import show_steps
from trunkline.cli.table import print_table, size
from trunkline.errors import FileError
from trunkline.text import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.engine.contract import Engine
    from trunkline.bench.kv.request_worker import RequestRun, RequestWorker
    from trunkline.bench.kv.traffic_worker import TrafficRun, TrafficWorker
    from trunkline.bench.options import Options


def requests(
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
    page_size: PageSize = None,
    access_pattern: AccessPattern = None,
    precision: Precision = None,
    warmup_iter: Annotated[
        int, typer.Option(min=0, help="How often the first requests are moved before anything is measured.")
    ] = 5,
    concurrency: Annotated[
        int, typer.Option(min=1, help="How many requests are moved at once; the next begin when all are there.")
    ] = 1,
    **given: Any,
) -> None:
    """Move the KV caches of requests from prefill ranks to decode ranks, and print what a request takes.

    There are as many workers as ranks, prefill ranks first: with --tp 2 and --decode-tp 4 --local 6 starts them here.
    The requests are moved one after another, or --concurrency at once; their pages lie scattered in memory.
    """
    own = {name: value for name, value in locals().items() if name != "given"}

    from trunkline.bench.kv.configuration import RunShape
    from trunkline.bench.kv.model import find_model
    from trunkline.bench.kv.request_worker import RequestWorker
    from trunkline.bench.kv.sizes import measure_sizes
    from trunkline.cli.bench_kv import find_lengths, run_shape

    run = run_shape(model_config, {name: own[name] for name in RunShape.__struct_fields__})
    shape = find_model(model)
    lengths = find_lengths(run, trace, num_requests, given["seed"] or 0)
    longest = int(run.plan(shape).pages_of(lengths.inputs).max())
    concurrency = min(concurrency, len(lengths.inputs))
    plan = run.plan(shape, pages=longest * concurrency)
    options = _options(given, plan.rank_bytes.tolist())
    op_type: Literal["READ", "WRITE"] = "READ" if options.op_type == "READ" else "WRITE"

    def make(group: Coordinator) -> RequestWorker:
        return RequestWorker(
            group,
            plan,
            lengths,
            op_type=op_type,
            seed=options.seed,
            warmup=warmup_iter,
            concurrency=concurrency,
            is_checked=options.check_consistency,
            timeout=options.timeout,
        )

    sizes = measure_sizes(plan, lengths, op_type)
    facts = {"the workload": _digest(sizes, concurrency, lengths.inputs.tolist(), lengths.outputs.tolist())}
    _run(options, ["requests", *_arguments(own)], facts, make, _request_table)


def traffic(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="KVBench's YAML of ct-perftest or sequential-ct-perftest.")
    ],
    *,
    mem_type: Annotated[
        Literal["cpu"] | None, typer.Option(help="Move what the file has in memory of GPUs in the host's instead.")
    ] = None,
    **given: Any,
) -> None:
    """Move patterns of traffic: each alone, and then all of them one after the other, and print how they differ.

    There are as many workers as rows in a matrix; --local starts them here.
    """
    from trunkline.bench.kv.traffic import check_memory, read_traffic
    from trunkline.bench.kv.traffic_worker import TrafficWorker

    found = read_traffic(file)
    if mem_type is None:
        check_memory(found)
    else:
        of_host = tuple(dataclasses.replace(pattern, memory="DRAM") for pattern in found.patterns)
        found = dataclasses.replace(found, patterns=of_host)
    options = _options(given, found.rank_bytes.sum(axis=0).tolist())

    def make(group: Coordinator) -> TrafficWorker:
        return TrafficWorker(
            group, found, seed=options.seed, is_checked=options.check_consistency, timeout=options.timeout
        )

    patterns = [(pattern.matrix.tolist(), pattern.op_type, pattern.sleep) for pattern in found.patterns]
    facts = {"the traffic": _digest(*patterns, found.iterations, found.warmup, found.isolated)}
    _run(options, ["traffic", str(file), *_arguments({"mem_type": mem_type})], facts, make, _traffic_table)


add_settings(requests, (*SHARED, "op_type"))
add_settings(traffic, SHARED)


def _options(given: dict[str, Any], needed: Sequence[int]) -> Options:
    from trunkline.bench.config_file import make_options
    from trunkline.bench.ranks import check_run

    options = make_options(given)
    if not options.local and not options.workers:
        options = dataclasses.replace(options, workers=len(needed))
    check_run(options, needed)
    return options


def _arguments(own: dict[str, Any]) -> list[str]:
    """Return options as they are written on a command line."""
    return [
        word for name, value in own.items() if value is not None for word in (f"--{name.replace('_', '-')}", str(value))
    ]


def _digest(*those: object) -> str:
    """Return a word that stands for what is long, and must be the same for all workers."""
    from hashlib import sha256

    return sha256("\n".join(map(str, those)).encode()).hexdigest()[:12]


def _run(
    options: Options,
    command: Sequence[str],
    facts: dict[str, str],
    make: Callable[[Coordinator], RequestWorker | TrafficWorker],
    table: Callable[[Any], None],
) -> None:
    """Be one worker; at rank 0 print and write what was found, also if it breaks off."""
    kept: list[RequestRun | TrafficRun] = []

    def work(group: Coordinator, engine: Engine, name: str) -> None:
        worker = make(group)
        try:
            with show_steps(command[0], is_wanted=not (group.rank or options.quiet)) as bar:
                worker.run(engine, name, introduce=_introducer(options), progress=bar.update)
        finally:
            kept.extend(filter(None, [worker.result(engine.name)]))

    complaints: list[str] = []
    try:
        run_ranks(options, command, facts, work)
    finally:
        for found in kept:
            complaints = _conclude(found, options, table)
    if complaints:
        raise typer.Exit(1)


def _conclude(found: RequestRun | TrafficRun, options: Options, table: Callable[[Any], None]) -> list[str]:
    """Print and write what rank 0 has; return why it is no success, which is said."""
    import msgspec

    from trunkline.bench.formats.file import write_file

    complaints = [f"{found.wrong} blocks are wrong: {found.first_wrong}"] if found.wrong else []
    if options.json != "-":
        table(found)
    if options.json:
        try:
            write_file(options.json, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
        except FileError as error:
            complaints.append(str(error))
    if not found.is_complete:
        typer.echo("it broke off: the figures are those of what was moved until then", err=True)
    for complaint in complaints:
        typer.secho(f"trunkline: {escape(complaint)}", err=True, fg="red")
    return complaints


def _introducer(options: Options) -> Callable[[dict[str, str]], None]:
    """Return what prints who moves bytes to whom over what."""

    def introduce(transports: dict[str, str]) -> None:
        for pair, transport in transports.items():
            initiator, _, target = pair.partition("-")
            typer.echo(f"rank {initiator} → rank {target}: {options.engine} over {transport}", err=True)

    return (lambda _: None) if options.quiet else introduce


def _request_table(found: RequestRun) -> None:
    print_table(
        ("REQUESTS", "AT ONCE", "TOKENS", "MOVED (GB)", "AVG (ms)", "P50 (ms)", "P90 (ms)", "P99 (ms)", "GB/S",
         "INPUT TOKENS/S", "OUTPUT TOKENS/S"),
        [
            (
                str(len(found.requests)),
                str(found.concurrency),
                str(sum(each.input_tokens for each in found.requests)),
                f"{sum(each.bytes for each in found.requests) / 1e9:.3f}",
                _milliseconds(found.latency_avg_us),
                _milliseconds(found.latency_p50_us),
                _milliseconds(found.latency_p90_us),
                _milliseconds(found.latency_p99_us),
                f"{found.bandwidth_gb_s:.3f}",
                f"{found.input_tokens_per_s:.0f}",
                "-" if found.output_tokens_per_s is None else f"{found.output_tokens_per_s:.0f}",
            )
        ],
    )  # fmt: skip


def _traffic_table(found: TrafficRun) -> None:
    print_table(
        ("PATTERN", "SIZE", "SENDERS", "P50 (ms)", "P99 (ms)", "ALONE P50 (ms)", "ALONE P99 (ms)", "SLOWDOWN", "GB/S"),
        [
            (
                str(number),
                size(each.bytes),
                str(each.senders),
                _milliseconds(each.latency_p50_us),
                _milliseconds(each.latency_p99_us),
                _milliseconds(each.isolated_p50_us),
                _milliseconds(each.isolated_p99_us),
                "-" if each.slowdown is None else f"{each.slowdown:.2f}",
                "-" if each.bandwidth_gb_s is None else f"{each.bandwidth_gb_s:.3f}",
            )
            for number, each in enumerate(found.patterns, 1)
        ],
    )


def _milliseconds(microseconds: float | None) -> str:
    return "-" if microseconds is None else f"{microseconds / 1e3:.3f}"
