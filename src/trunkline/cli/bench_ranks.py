"""What the commands have in common whose workers all move blocks with any other: matrix, requests, traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import typer

from trunkline.errors import GroupError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.engine.contract import Engine
    from trunkline.bench.options import Options

SHARED = (
    "local", "workers", "rank", "benchmark_group", "etcd_endpoints", "timeout", "engine", "json", "quiet", "backend",
    "check_consistency", "total_buffer_size", "seed", "device_list", "enable_pt", "progress_threads",
)  # fmt: skip
"""The benchmark's settings that all of them have, too."""

_ALIKE = ("engine", "backend", "op_type", "check_consistency", "seed")

_Found = TypeVar("_Found")


def run_ranks(
    options: Options,
    command: Sequence[str],
    facts: Mapping[str, str],
    work: Callable[[Coordinator, Engine, str], _Found],
) -> _Found:
    """Be one worker of a run.

    Args:
        options: The run's, checked.
        command: What ``trunkline bench`` is told for the other workers, before the options; for --local.
        facts: What must be the same for all workers, beside the options that must be.
        work: As for :func:`~trunkline.bench.ranks.run_worker`.

    Raises:
        TrunklineError: It broke off; the other workers were told why.
        typer.Exit: The same, and the one that started this worker tells it.
    """
    from trunkline.bench.ranks import run_worker

    alike = {f"--{name.replace('_', '-')}": str(getattr(options, name)) for name in _ALIKE}
    try:
        return run_worker(options, command, {**alike, **facts}, work)
    except GroupError as error:
        if options.quiet:
            raise typer.Exit(1) from error
        raise
