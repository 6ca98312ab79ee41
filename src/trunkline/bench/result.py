"""What a run of the benchmark found, as it is written to JSON and CSV, compared and drawn.

Names carry their units: ``_gb_s`` is 10^9 bytes a second, ``_us`` microseconds, sizes are bytes. What was not measured
is None: null in JSON, nothing in CSV.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

FORMAT: Final = "trunkline-bench/1"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement: its settings first, then what was measured.

    Attributes:
        engine: ``trunkline`` or ``nixl``; what moved the bytes.
        backend: The backend by its name in NIXL's API, as ``UCX``.
        transport: What it really used, as UCX names it (``cma``, ``tcp``), or the backend's own word.
        op_type: READ or WRITE, or BOTH where pairs move bytes both ways at once; NOTIFY for notifications there and
            back; REGISTER, ENCODE, PUBLISH, EXCHANGE and LOAD for metadata.
        scheme: pairwise, manytoone, onetomany or tp.
        mode: SG (a worker has one device) or MG (several).
        initiator_seg_type: The initiator's memory, as DRAM.
        target_seg_type: The target's memory, as DRAM, FILE.
        pairs: How many pairs of workers move bytes at once.
        num_threads: Threads of each initiator.
        pipeline_depth: Transfers that each thread has under way.
        rate_per_s: Transfers a second that each thread starts (open loop); None: one after the other.
        initiator: Where one pair was measured alone, the initiator's rank.
        target: Where one pair was measured alone, the target's rank.
        block_size: Bytes of one block.
        batch_size: Blocks of one transfer.
        iterations: Transfers measured, over all threads of one initiator.
        bandwidth_gb_s: Of one initiator, the mean over initiators.
        aggregate_gb_s: Of all pairs together; None where there is one.
        utilisation_percent: The aggregate, against the limit.
        latency_avg_us: From the beginning of ``prepare`` (``post`` where it is prepared once) to the end of a transfer.
        prepare_avg_us: Making the request.
        post_avg_us: The call that starts it.
        transfer_avg_us: From the start of that call until the end was seen.
        variation: Standard deviation over mean of the bandwidth of parts of the run (the coefficient of variation).
        is_noisy: The parts differ so much that the figures should not be trusted.
        limit_gb_s: What this was compared with: see Run.limit.
        limit_percent: The bandwidth, against the limit.
        wrong: Blocks that did not hold what they should; None where it was not checked.
    """

    engine: str
    backend: str
    transport: str
    op_type: str
    scheme: str
    mode: str
    initiator_seg_type: str
    target_seg_type: str
    pairs: int
    num_threads: int
    pipeline_depth: int
    rate_per_s: float | None = None
    initiator: int | None = None
    target: int | None = None
    block_size: int
    batch_size: int
    iterations: int
    bandwidth_gb_s: float
    aggregate_gb_s: float | None = None
    utilisation_percent: float | None = None
    latency_avg_us: float
    latency_p50_us: float | None = None
    latency_p90_us: float | None = None
    latency_p99_us: float | None = None
    latency_p99_9_us: float | None = None
    prepare_avg_us: float | None = None
    prepare_p99_us: float | None = None
    post_avg_us: float | None = None
    post_p99_us: float | None = None
    transfer_avg_us: float | None = None
    transfer_p50_us: float | None = None
    transfer_p90_us: float | None = None
    transfer_p99_us: float | None = None
    transfer_p99_9_us: float | None = None
    variation: float | None = None
    is_noisy: bool | None = None
    limit_gb_s: float | None = None
    limit_percent: float | None = None
    wrong: int | None = None


SETTINGS = (
    "engine", "backend", "op_type", "scheme", "mode", "initiator_seg_type", "target_seg_type", "pairs", "num_threads",
    "pipeline_depth", "rate_per_s", "initiator", "target", "block_size", "batch_size",
)  # fmt: skip
"""The fields that tell one measurement of a run from another; the others are what was measured."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the benchmark: the JSON document.

    Attributes:
        rows: The measurements, in the order they were made.
        format: Which schema this follows.
        version: Of Trunkline; empty for what was imported.
        started: When, as ISO 8601 with the time zone.
        workload: Which job it was.
        group: The group's name.
        options: The options that were not at their defaults, by name; secrets are left out.
        environment: The machines: see trunkline.bench.environment.
        limit: What limits were taken from: ``memcpy``, ``ucx`` (both measured in this run), ``given``, or None.
        is_complete: False where the run was interrupted or failed after some rows.
        notes: What a reader should know: why it is not complete, that the machine was noisy.
    """

    rows: tuple[Row, ...]
    format: Literal["trunkline-bench/1"] = FORMAT
    version: str = ""
    started: str = ""
    workload: str = "sweep"
    group: str = ""
    options: dict[str, str | int | float | bool] = {}
    environment: dict[str, str] = {}
    limit: str | None = None
    is_complete: bool = True
    notes: tuple[str, ...] = ()


def find_flaws(run: Run) -> list[str]:
    """Return in words what must not be overlooked when a run's figures are read; nothing if all is well."""
    wrong = sum(row.wrong or 0 for row in run.rows)
    noisy = sum(row.is_noisy or False for row in run.rows)
    found = []
    if wrong:
        found.append(f"{wrong:,} blocks did not hold what they should")
    if not run.is_complete:
        found.append(f"not complete: it was interrupted or failed after {len(run.rows)} rows")
    if noisy:
        found.append(f"{noisy} of {len(run.rows)} rows are too noisy to trust")
    return found
