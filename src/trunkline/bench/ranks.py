"""One of the ranks that move blocks with any other: the group, the engine, and that all want the same."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

import msgspec

from trunkline.bench.local import COMMAND
from trunkline.bench.plan import check_outputs
from trunkline.bench.session import join_group, open_worker_engine
from trunkline.bench.team import decode_all
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trunkline.bench.coordinator import Coordinator
    from trunkline.bench.engine.contract import Engine
    from trunkline.bench.options import Options

BACKENDS = ("UCX", "CMA")

_Found = TypeVar("_Found")
_FACTS = msgspec.msgpack.Decoder(dict[str, str])


def check_run(options: Options, needed: Sequence[int]) -> None:
    """Check the options of a run, before anything starts.

    Args:
        options: The run's.
        needed: Bytes of memory that each rank needs.

    Raises:
        ConfigurationError: One can't be used for such a workload, there are not as many workers as ranks, or a rank
            would need more memory than it may have.
    """
    if options.backend not in BACKENDS:
        raise ConfigurationError(
            f"--backend {options.backend} has no ranks to move blocks between; take {' or '.join(BACKENDS)}"
        )
    if options.engine == "both":
        raise ConfigurationError("--engine both is for block transfers; run this with trunkline and with nixl")
    if options.engine == "nixl" and options.backend != "UCX":
        raise ConfigurationError(f"--engine nixl is measured with UCX here, not {options.backend}")
    check_outputs(options)
    ranks = len(needed)
    if options.size != ranks:
        raise ConfigurationError(
            f"{options.size} workers can't be the {ranks} ranks asked for; start {ranks} (as with --local {ranks}), "
            "or ask for others"
        )
    most = max(needed)
    if most > options.total_buffer_size:
        raise ConfigurationError(
            f"rank {needed.index(most)} needs {most:,} bytes of memory, and --total-buffer-size is "
            f"{options.total_buffer_size:,}; raise it, or move less at once"
        )


def run_worker(
    options: Options,
    command: Sequence[str],
    facts: Mapping[str, str],
    work: Callable[[Coordinator, Engine, str], _Found],
) -> _Found:
    """Be one worker of a run, to its end.

    Args:
        options: The run's, checked.
        command: What ``trunkline bench`` is told for the other workers, before the options; for --local.
        facts: What must be the same for all workers.
        work: Does the work, with the group, this worker's engine, and what that is called.

    Returns:
        What the work returned.

    Raises:
        ConfigurationError: Workers want different things.
        TrunklineError: It broke off; the other workers were told why.
    """
    with contextlib.ExitStack() as stack:
        store, group = join_group(stack, options, (*COMMAND, *command))
        _check_same(group, facts)
        name = f"bench-{group.rank}"
        engine = open_worker_engine(options.engine, name, store, options, is_target=True)
        stack.callback(engine.close)
        stack.push(group)  # it is left first: the others hear why before their transfers to this engine fail
        return work(group, engine, name)


def _check_same(group: Coordinator, facts: Mapping[str, str]) -> None:
    first, *others = decode_all(_FACTS, group.allgather(msgspec.msgpack.encode(facts)), "options")
    for rank, other in enumerate(others, 1):
        for what in sorted({*first, *other}):
            if first.get(what) != other.get(what):
                raise ConfigurationError(
                    f"workers want different things: {what} is {first.get(what)} at rank 0 and {other.get(what)} at "
                    f"rank {rank}; give all of them the same"
                )
