"""Runs as the benchmark may have measured them: figures follow a simple model of a link, so that plots look real."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from trunkline.bench.result import Row, Run

if TYPE_CHECKING:
    from collections.abc import Iterable

SIZES = tuple(4096 << step for step in range(0, 15, 2))

HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u202eevil\x1b[31m\x00"
"""What would do something to a page or a terminal that took it as it is."""

ENVIRONMENT = {
    "processor": "AMD EPYC",
    "cores": "2 usable of 2",
    "memory": "23.5 GiB",
    "kernel": "Linux 6.18.44 x86_64",
    "ucx": "1.22.0",
    "ucx settings": "UCX_NET_DEVICES=lo",
    "network devices": "eth0 (25 Gb/s), lo",
    "store": "etcd 3.5.1",
}


def make_row(**changes: Any) -> Row:
    """Return a row; ``start_us`` and ``rate_gb_s`` are the link's, all else are the row's own fields."""
    start_us, rate_gb_s = changes.pop("start_us", 18.0), changes.pop("rate_gb_s", 10.0)
    block_size, batch_size = changes.get("block_size", 4096), changes.get("batch_size", 1)
    transfer = start_us + block_size * batch_size / rate_gb_s / 1e3
    bandwidth = block_size * batch_size / transfer / 1e3
    limit = changes.get("limit_gb_s")
    fields: dict[str, Any] = {
        "engine": "trunkline",
        "backend": "UCX",
        "transport": "cma",
        "op_type": "WRITE",
        "scheme": "pairwise",
        "mode": "SG",
        "initiator_seg_type": "DRAM",
        "target_seg_type": "DRAM",
        "pairs": 1,
        "num_threads": 1,
        "pipeline_depth": 1,
        "block_size": block_size,
        "batch_size": batch_size,
        "iterations": 1000,
        "bandwidth_gb_s": bandwidth,
        "latency_avg_us": transfer + 3,
        "latency_p50_us": transfer + 2.5,
        "latency_p90_us": 1.2 * transfer + 3,
        "latency_p99_us": 1.9 * transfer + 5,
        "latency_p99_9_us": 3.5 * transfer + 40,
        "prepare_avg_us": 2.0,
        "prepare_p99_us": 4.0,
        "post_avg_us": 1.0,
        "post_p99_us": 2.5,
        "transfer_avg_us": transfer,
        "transfer_p50_us": transfer - 0.5,
        "transfer_p90_us": 1.2 * transfer,
        "transfer_p99_us": 1.9 * transfer,
        "transfer_p99_9_us": 3.5 * transfer,
        "variation": 0.03,
        "is_noisy": False,
        "limit_percent": None if limit is None else 100 * bandwidth / limit,
        "wrong": 0,
    }
    return Row(**fields | changes)


def make_run(
    *, op_types: Iterable[str] = ("WRITE", "READ"), batch_sizes: Iterable[int] = (1, 16), **changes: Any
) -> Run:
    """Return a sweep over block and batch sizes; ``changes`` are of its rows."""
    rows = [
        make_row(
            **{
                "op_type": op_type,
                "block_size": block_size,
                "batch_size": batch_size,
                "limit_gb_s": 12.5,
                "rate_gb_s": 10.0 if op_type == "WRITE" else 8.0,
                **changes,
            }
        )
        for op_type, batch_size, block_size in product(op_types, batch_sizes, SIZES)
    ]
    return Run(
        rows=tuple(rows),
        version="0.1.0",
        started="2026-11-25T12:00:00+00:00",
        group="default",
        options={"max_block_size": 67108864, "check_consistency": True},
        environment=ENVIRONMENT,
        limit="memcpy",
    )


def make_matrix(workers: int) -> Run:
    """Return a run in which every pair of workers was measured alone, one of them much slower."""
    return Run(
        rows=tuple(
            make_row(
                initiator=initiator,
                target=target,
                block_size=1 << 20,
                transport="tcp",
                rate_gb_s=1.0 if (initiator, target) == (2, 1) else 9 + (initiator * 7 + target * 3) % 5 / 4,
            )
            for initiator in range(workers)
            for target in range(workers)
            if initiator != target
        ),
        workload="matrix",
    )


def make_hostile() -> Run:
    """Return a run all of whose texts are hostile."""
    run = make_run(
        engine=HOSTILE, backend=HOSTILE, transport=HOSTILE, scheme=HOSTILE, mode=HOSTILE,
        initiator_seg_type=HOSTILE, target_seg_type=HOSTILE,
    )  # fmt: skip
    return Run(
        rows=run.rows,
        version=HOSTILE,
        started=HOSTILE,
        workload=HOSTILE,
        group=HOSTILE,
        options={HOSTILE: HOSTILE},
        environment={HOSTILE: HOSTILE},
        limit=HOSTILE,
        is_complete=False,
        notes=(HOSTILE,),
    )
