"""What a run measures, one step after the other: sizes, and how often."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trunkline.bench.options import MIB
from trunkline.bench.roles import assign_roles
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trunkline.bench.options import Options


class Step(NamedTuple):
    """One row's work.

    Attributes:
        number: Which it is, from 0.
        block_size: Bytes of a block.
        batch_size: Blocks of a transfer.
        iterations: Transfers of each thread.
        warmup: Transfers of each thread before those.
    """

    number: int
    block_size: int
    batch_size: int
    iterations: int
    warmup: int

    @property
    def transfer_size(self) -> int:
        """Bytes of one transfer."""
        return self.block_size * self.batch_size


def plan_steps(options: Options) -> list[Step]:
    """Return the steps: every size of blocks with every number of them, doubling from start to max."""
    steps: list[Step] = []
    for block_size in _doubling(options.start_block_size, options.max_block_size):
        for batch_size in _doubling(options.start_batch_size, options.max_batch_size):
            iterations, warmup = options.num_iter, options.warmup_iter
            if block_size > MIB:
                factor = options.large_blk_iter_ftr
                iterations, warmup = max(1, iterations // factor), warmup // factor
            steps.append(
                Step(
                    len(steps),
                    block_size,
                    batch_size,
                    -(-iterations // options.num_threads),
                    -(-warmup // options.num_threads),
                )
            )
    return steps


def check_options(options: Options) -> None:
    """Check that options fit together, before anything starts.

    Raises:
        ConfigurationError: Some don't; it names them, and says what would do.
    """
    from trunkline.bench.options import DEFAULTS, settings

    for name, setting in settings().items():
        if setting.backends and options.backend not in setting.backends and getattr(options, name) != DEFAULTS[name]:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} is for {' and '.join(setting.backends)}, and the backend is "
                f"{options.backend}: leave it out, or choose another --backend",
                option=name,
            )
    for kind in ("block", "batch"):
        start, most = getattr(options, f"start_{kind}_size"), getattr(options, f"max_{kind}_size")
        if start > most:
            raise ConfigurationError(
                f"--start-{kind}-size {start} is more than --max-{kind}-size {most}: nothing would be measured"
            )
    roles = assign_roles(options)
    lanes = options.num_threads * options.pipeline_depth * roles.most_peers
    largest = max(step.transfer_size for step in plan_steps(options))
    if largest * lanes > options.total_buffer_size:
        raise ConfigurationError(
            f"{largest:,} bytes of one transfer, for each of {options.num_threads} threads × "
            f"{options.pipeline_depth} under way × {roles.most_peers} peers, are more than --total-buffer-size "
            f"{options.total_buffer_size:,}: lower --max-block-size or --max-batch-size, or raise it"
        )
    _check_memory(options, largest * lanes)
    if "VRAM" in (options.initiator_seg_type, options.target_seg_type):
        side = "initiator" if options.initiator_seg_type == "VRAM" else "target"
        raise ConfigurationError(
            f"--{side}-seg-type VRAM: the benchmark allocates host memory only; for GPU memory it lacks an allocator "
            "(CUDA), which nobody has had a GPU to try. Leave it out, or say DRAM"
        )
    if options.reregister_mem and options.prepared_xfer:
        raise ConfigurationError(
            "--prepared-xfer makes requests from lists that were looked up once, and with --reregister-mem what they "
            "refer to is gone after the first transfer: leave one out"
        )
    if options.engine != "trunkline" and options.backend not in ("UCX", "POSIX"):
        raise ConfigurationError(f"--engine {options.engine} is measured with UCX and POSIX, not {options.backend}")
    if options.progress_threads > 1 and options.engine != "nixl":
        raise ConfigurationError(f"--progress-threads {options.progress_threads}: Trunkline's agents have one")
    if options.limit == "ucx" and (options.engine == "nixl" or options.backend != "UCX" or options.limit_gbps):
        raise ConfigurationError(
            "--limit ucx is measured beside Trunkline's own transfers over UCX: leave it out with another --backend, "
            "with --engine nixl, whose process has another UCX, and with --limit-gbps"
        )
    if options.is_storage and (options.bidirectional or options.local > 1 or options.workers > 1):
        raise ConfigurationError(
            f"{options.backend} moves blocks between this worker and its files or objects: it runs alone, without "
            "--bidirectional and without more workers"
        )
    if options.is_storage and options.engine == "both":
        raise ConfigurationError(f"--engine both compares workers, and {options.backend} runs alone")
    if options.workload != "sweep":
        _check_workload(options)
    check_outputs(options)
    if options.local and (options.etcd_endpoints or options.workers or options.rank >= 0):
        raise ConfigurationError(
            "--local starts all workers and an etcd of their own: leave out --etcd-endpoints, --workers and --rank"
        )


def available_memory() -> int | None:
    """Return how many bytes this machine can give without swapping; None where the kernel does not say."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _check_memory(options: Options, side: int) -> None:
    """Check that this machine has the memory; a worker that takes more would be killed, or others would."""
    available = available_memory()
    needed = side * (2 if options.bidirectional else 1) * max(1, options.local)
    if available is not None and needed > available:
        who = f"{options.local} workers take" if options.local else "this worker takes"
        raise ConfigurationError(
            f"{who} {needed:,} bytes of memory for the largest transfers, and this machine has {available:,} "
            "available: lower --max-block-size, --max-batch-size, --num-threads or --pipeline-depth"
        )


def check_outputs(options: Options) -> None:
    """Check that at most one file goes to standard output.

    Raises:
        ConfigurationError: Several do.
    """
    outputs = [name for name in ("csv", "json", "report") if getattr(options, name) == "-"]
    if len(outputs) > 1:
        named = " and ".join(f"--{name} -" for name in outputs)
        raise ConfigurationError(f"{named} would go to standard output together: give all but one a path")


def ignored_options(options: Options) -> list[str]:
    """Return in words which of the options that are set change nothing."""
    from trunkline.bench.options import settings

    given = options.given()
    return [
        f"--{name.replace('_', '-')} is ignored: {setting.ignored}"
        for name, setting in settings().items()
        if setting.ignored and name in given
    ]


def _check_workload(options: Options) -> None:
    from trunkline.bench.options import DEFAULTS

    names = ["bidirectional", "rate", "check_consistency", "num_threads", "pipeline_depth", "scheme", "mode", "limit"]
    names += ["recreate_xfer", "reregister_mem", "prepared_xfer"]
    unfit = [name for name in names if getattr(options, name) != DEFAULTS[name]]
    if unfit:
        raise ConfigurationError(
            f"--workload {options.workload} has no use for --{unfit[0].replace('_', '-')}: leave it out",
            option=unfit[0],
        )
    needed = 4 if options.engine == "both" else 2
    if options.is_storage or (options.workload == "metadata" and options.size != needed):
        raise ConfigurationError(
            f"--workload {options.workload} is measured between workers"
            + (f", {needed} of them" if options.workload == "metadata" else "")
            + f", not with {options.size} and --backend {options.backend}"
        )


def _doubling(start: int, most: int) -> Iterator[int]:
    value = start
    while value <= most:
        yield value
        value *= 2
