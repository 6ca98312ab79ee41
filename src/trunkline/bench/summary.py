"""From what the workers of a team measured to a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trunkline.bench.result import Row
from trunkline.bench.statistics import NOISY, mean, percentile, variation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trunkline.bench.options import Options
    from trunkline.bench.outcome import Outcome
    from trunkline.bench.plan import Step
    from trunkline.bench.roles import Roles
    from trunkline.bench.statistics import Measured
    from trunkline.bench.team import Link


def summarise(
    options: Options,
    roles: Roles,
    links: Sequence[Link],
    step: Step,
    engine: str,
    outcomes: Sequence[Outcome],
    limit: float | None,
) -> Row:
    """Return a team's row.

    Args:
        options: The run's.
        roles: Who did what.
        links: What carried the bytes.
        step: What was measured.
        engine: The team's.
        outcomes: What its workers found.
        limit: What the bandwidth is compared with, in 10^9 bytes a second.
    """
    measured = [each.measured for each in outcomes if each.measured is not None]
    ranks = next(ranks for name, ranks in roles.teams if name == engine)
    its = [pair for pair in roles.pairs if pair.initiator in ranks]
    rates = [each.rate / 1e9 for each in measured]
    aggregate = sum(rates) if len(its) > 1 else None
    bandwidth = sum(rates) / len(rates)
    return Row(
        engine=engine,
        backend=options.backend,
        transport=" + ".join(dict.fromkeys(link.transport for link in links if link.initiator in ranks)),
        op_type=_operation(options),
        scheme=options.scheme,
        mode=options.mode,
        initiator_seg_type=options.initiator_seg_type,
        target_seg_type=_far_kind(options),
        pairs=len(its),
        num_threads=options.num_threads,
        pipeline_depth=options.pipeline_depth,
        rate_per_s=options.rate or None,
        block_size=step.block_size,
        batch_size=step.batch_size,
        iterations=measured[0].transfer.count,
        bandwidth_gb_s=bandwidth,
        aggregate_gb_s=aggregate,
        utilisation_percent=None if aggregate is None or limit is None else 100 * aggregate / limit,
        **figures(measured),
        limit_gb_s=limit,
        limit_percent=None if limit is None else 100 * bandwidth / limit,
        wrong=sum(each.wrong for each in outcomes) if options.check_consistency else None,
    )


def figures(measured: Sequence[Measured]) -> dict[str, Any]:
    """Return a row's times and how steady they were, by the row's names, of initiators that moved blocks at once."""
    # Workers' parts are about simultaneous: what the sum of them does is what the run did.
    found = variation([sum(each) for each in zip(*(one.parts for one in measured), strict=True)])
    latency, prepare = [each.latency for each in measured], [each.prepare for each in measured]
    post, transfer = [each.post for each in measured], [each.transfer for each in measured]
    return {
        "latency_avg_us": mean(latency) or 0.0,
        "latency_p50_us": percentile(latency, 50),
        "latency_p90_us": percentile(latency, 90),
        "latency_p99_us": percentile(latency, 99),
        "latency_p99_9_us": percentile(latency, 99.9),
        "prepare_avg_us": mean(prepare),
        "prepare_p99_us": percentile(prepare, 99),
        "post_avg_us": mean(post),
        "post_p99_us": percentile(post, 99),
        "transfer_avg_us": mean(transfer),
        "transfer_p50_us": percentile(transfer, 50),
        "transfer_p90_us": percentile(transfer, 90),
        "transfer_p99_us": percentile(transfer, 99),
        "transfer_p99_9_us": percentile(transfer, 99.9),
        "variation": found,
        "is_noisy": None if found is None else found > NOISY,
    }


def compare_teams(roles: Roles, step: Step, outcomes: Sequence[Outcome]) -> str:
    """Return in words how the first team's bandwidth relates to the second's, round by round.

    Args:
        roles: Who did what.
        step: What was measured.
        outcomes: What all workers found, by rank.
    """
    (first, _), (second, _) = roles.teams
    rates = []
    for _, ranks in roles.teams:
        measured = [outcomes[rank].measured for rank in ranks]
        rates.append(np.sum([each.rates for each in measured if each is not None], axis=0))
    ratios = rates[0] / rates[1]
    return (
        f"{step.block_size:,} B × {step.batch_size}: bandwidth of {first} / {second} {np.median(ratios):.2f} "
        f"(median of {len(ratios)} rounds in turn, {ratios.min():.2f} to {ratios.max():.2f})"
    )


def _operation(options: Options) -> str:
    if options.workload == "notifications":
        return "NOTIFY"
    return "BOTH" if options.bidirectional else options.op_type


def _far_kind(options: Options) -> str:
    if not options.is_storage:
        return options.target_seg_type
    return "OBJECT" if options.backend == "OBJ" else "FILE"
