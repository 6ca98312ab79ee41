"""What can be set of a run: one class says the names, defaults and meanings, for the command line and for TOML files.

Names and defaults are NIXLBench's wherever it has such an option.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from trunkline.errors import ConfigurationError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

STORAGE: Final = ("POSIX", "GDS", "GDS_MT", "OBJ")
"""Backends whose far side is no worker: they run alone."""

PANELS: Final = ("Run", "Workload", "Sizes", "Transfers", "Network", "Storage", "Object stores", "GPUDirect Storage")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What an option is, besides its name, type and default.

    Attributes:
        meaning: For the help.
        panel: Where the help lists it.
        choices: The words it may be; any, if empty. Case does not matter.
        least: The least number it may be.
        is_size: Whether it counts bytes, and may be written as 64KiB.
        backends: The backends it is for; all, if empty.
        is_secret: Whether it is left out of what is written.
        ignored: Why it changes nothing; it is accepted for the sake of scripts that were written for NIXLBench.
    """

    meaning: str
    panel: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    is_size: bool = False
    backends: tuple[str, ...] = ()
    is_secret: bool = False
    ignored: str = ""


def _option(default: Any, panel: str, meaning: str, **facts: Any) -> Any:
    return field(default=default, metadata={"setting": Setting(meaning=meaning, panel=panel, **facts)})


_FILES: Final = ("POSIX", "GDS", "GDS_MT")
_POSIX: Final = "the POSIX backend has one way to do it"
_OBJECTS: Final = ("OBJ",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The settings of a run; each one's meaning is in its :class:`Setting`, see :func:`settings`."""

    local: int = _option(
        0, "Run", "Start so many workers and an etcd on this machine, and be one of them; 0 to be one worker.", least=0
    )
    workers: int = _option(
        0, "Run", "How many workers the group has; 0 for --num-initiator-dev + --num-target-dev.", least=0
    )
    rank: int = _option(
        -1, "Run", "This worker's number; -1 for SLURM_PROCID, JOB_COMPLETION_INDEX or RANK, else by arrival.", least=-1
    )
    benchmark_group: str = _option("default", "Run", "The group's name: workers of one run give the same.")
    etcd_endpoints: str = _option("", "Run", "Where workers meet, as etcd://host:2379; NIXL_ETCD_ENDPOINTS if empty.")
    runtime_type: str = _option("ETCD", "Run", "How workers meet.", choices=("ETCD",))
    worker_type: str = _option("nixl", "Run", "Accepted for NIXLBench's sake.", choices=("nixl",))
    timeout: float = _option(
        60.0, "Run", "Seconds that workers wait for each other, and for one transfer.", least=0.001
    )
    engine: str = _option(
        "trunkline", "Run", "What moves the bytes; with both, half of the workers each, in turn.",
        choices=("trunkline", "nixl", "both"),
    )  # fmt: skip
    limit: str = _option(
        "memcpy", "Run", "What the % of limit is of: a memcpy of the same size, or bare UCX between the first pair.",
        choices=("memcpy", "ucx"),
    )  # fmt: skip
    limit_gbps: float = _option(
        0.0, "Run", "What the % of limit is of instead, in 10^9 bytes a second; 0 for --limit.", least=0
    )
    quiet: bool = _option(False, "Run", "Say nothing but errors on standard error.")
    csv: str = _option("", "Run", "Write the rows as CSV to this path; - for standard output.")
    json: str = _option("", "Run", "Write the run as JSON to this path; - for standard output.")
    report: str = _option("", "Run", "Write a page with plots to this path.")

    workload: str = _option(
        "sweep", "Workload", "What is measured: block transfers, notifications there and back, or metadata.",
        choices=("sweep", "notifications", "metadata"),
    )  # fmt: skip
    backend: str = _option("UCX", "Workload", "What moves the blocks.", choices=("UCX", "CMA", *STORAGE))
    op_type: str = _option("WRITE", "Workload", "What initiators do.", choices=("READ", "WRITE"))
    scheme: str = _option(
        "pairwise", "Workload", "Who moves blocks to whom.", choices=("pairwise", "manytoone", "onetomany", "tp")
    )
    mode: str = _option(
        "SG", "Workload", "SG: a worker has one buffer (device); MG: one worker a side, with several.",
        choices=("SG", "MG"),
    )  # fmt: skip
    bidirectional: bool = _option(False, "Workload", "Targets are initiators, too, at the same time.")
    rate: float = _option(
        0.0, "Workload", "Transfers a second that each thread starts, whether or not earlier ones ended; 0 for one "
        "after the other.", least=0,
    )  # fmt: skip
    check_consistency: bool = _option(False, "Workload", "Check every block on the receiving side.")
    seed: int = _option(0, "Workload", "What the blocks' contents are made from.", least=0)

    total_buffer_size: int = _option(
        8 * GIB, "Sizes", "The most memory a worker takes for blocks on one side.", is_size=True, least=1
    )
    start_block_size: int = _option(4 * KIB, "Sizes", "The first size of blocks; it doubles.", is_size=True, least=1)
    max_block_size: int = _option(64 * MIB, "Sizes", "The largest size of blocks.", is_size=True, least=1)
    start_batch_size: int = _option(1, "Sizes", "The first number of blocks in a transfer; it doubles.", least=1)
    max_batch_size: int = _option(1, "Sizes", "The largest number of blocks in a transfer.", least=1)
    num_iter: int = _option(1000, "Sizes", "Transfers measured, over all threads.", least=1)
    warmup_iter: int = _option(100, "Sizes", "Transfers before those, over all threads.", least=0)
    large_blk_iter_ftr: int = _option(16, "Sizes", "Blocks above 1 MiB are moved this many times less.", least=1)

    num_threads: int = _option(1, "Transfers", "Threads of each initiator.", least=1)
    pipeline_depth: int = _option(1, "Transfers", "Transfers that each thread has under way.", least=1)
    recreate_xfer: bool = _option(False, "Transfers", "Make the request anew for each transfer.")
    reregister_mem: bool = _option(
        False, "Transfers", "Register the initiator's memory anew for each transfer, and make the request anew."
    )
    prepared_xfer: bool = _option(False, "Transfers", "Make requests from lists that were prepared once.")
    initiator_seg_type: str = _option("DRAM", "Transfers", "The initiators' memory.", choices=("DRAM", "VRAM"))
    target_seg_type: str = _option("DRAM", "Transfers", "The targets' memory.", choices=("DRAM", "VRAM"))
    num_initiator_dev: int = _option(
        1, "Transfers", "SG: how many initiators there are; MG: how many buffers the initiator has.", least=1
    )
    num_target_dev: int = _option(
        1, "Transfers", "SG: how many targets there are; MG: how many buffers the target has.", least=1
    )
    enable_pt: bool = _option(False, "Transfers", "Give NIXL a progress thread; Trunkline always has one.")
    progress_threads: int = _option(0, "Transfers", "How many; Trunkline has one.", least=0)
    use_hugepages: bool = _option(False, "Transfers", "Ask for huge pages (transparent ones).")

    device_list: str = _option(
        "all", "Network", "Network interfaces that UCX may use, as UCX_NET_DEVICES.", backends=("UCX",)
    )

    filepath: str = _option("", "Storage", "The directory of the files; a temporary one if empty.", backends=_FILES)
    filenames: str = _option("", "Storage", "Names of the files, comma-separated.", backends=_FILES)
    num_files: int = _option(1, "Storage", "How many files blocks are dealt to.", least=1, backends=_FILES)
    posix_api_type: str = _option("", "Storage", "As NIXLBench's.", backends=("POSIX",), ignored=_POSIX)
    posix_ios_pool_size: int = _option(0, "Storage", "As NIXLBench's.", least=0, backends=("POSIX",), ignored=_POSIX)
    posix_kernel_queue_size: int = _option(
        0, "Storage", "As NIXLBench's.", least=0, backends=("POSIX",), ignored=_POSIX
    )
    storage_enable_direct: bool = _option(False, "Storage", "Past the page cache (O_DIRECT).", backends=_FILES)
    randomize_location_mode: str = _option(
        "none", "Storage", "Where in the files blocks lie.", choices=("none", "blockaligned", "bytealigned"),
        backends=_FILES,
    )  # fmt: skip
    randomize_location_mode_seed: int = _option(0, "Storage", "What these places are drawn from.", backends=_FILES)

    gds_batch_pool_size: int = _option(
        32, "GPUDirect Storage", "Batches there may be at once.", least=1, backends=("GDS",)
    )
    gds_batch_limit: int = _option(128, "GPUDirect Storage", "Rows of one batch.", least=1, backends=("GDS",))
    gds_mt_num_threads: int = _option(1, "GPUDirect Storage", "Threads.", least=1, backends=("GDS_MT",))

    obj_bucket_name: str = _option("", "Object stores", "The bucket.", backends=_OBJECTS)
    obj_access_key: str = _option("", "Object stores", "The access key.", backends=_OBJECTS, is_secret=True)
    obj_secret_key: str = _option("", "Object stores", "The secret key.", backends=_OBJECTS, is_secret=True)
    obj_session_token: str = _option("", "Object stores", "The session token.", backends=_OBJECTS, is_secret=True)
    obj_scheme: str = _option("", "Object stores", "http or https, for an endpoint without.", backends=_OBJECTS)
    obj_region: str = _option("", "Object stores", "The region; else AWS_REGION.", backends=_OBJECTS)
    obj_endpoint_override: str = _option("", "Object stores", "The endpoint, if not Amazon's.", backends=_OBJECTS)
    obj_use_virtual_addressing: bool = _option(
        False, "Object stores", "The bucket is in the host's name.", backends=_OBJECTS
    )
    obj_req_checksum: str = _option(
        "", "Object stores", "When requests carry checksums: supported, or required.", backends=_OBJECTS
    )
    obj_ca_bundle: str = _option("", "Object stores", "Certificates to trust, a PEM file.", backends=_OBJECTS)

    @property
    def is_storage(self) -> bool:
        """Whether the far side is a file or an object store, and no other worker."""
        return self.backend in STORAGE

    @property
    def size(self) -> int:
        """How many workers the group has."""
        if self.is_storage:
            return 1
        given = self.local or self.workers
        if given:
            return given
        teams = 2 if self.engine == "both" else 1
        return teams * (2 if self.mode == "MG" else self.num_initiator_dev + self.num_target_dev)

    @property
    def buffers(self) -> tuple[int, int]:
        """How many buffers an initiator has, and a target."""
        return (self.num_initiator_dev, self.num_target_dev) if self.mode == "MG" else (1, 1)

    def given(self) -> dict[str, str | int | float | bool]:
        """Return the options that are not at the defaults of their workload, without secrets."""
        usual = DEFAULTS | WORKLOAD_DEFAULTS.get(self.workload, {})
        found = {name: getattr(self, name) for name, setting in settings().items() if not setting.is_secret}
        return {name: value for name, value in found.items() if value != usual[name]}


def settings() -> dict[str, Setting]:
    """Return every option's setting, by name, in the order of the class."""
    return _SETTINGS


_SETTINGS: Final[dict[str, Setting]] = {
    name: each.metadata["setting"] for name, each in Options.__dataclass_fields__.items()
}

DEFAULTS: Final[dict[str, Any]] = {name: each.default for name, each in Options.__dataclass_fields__.items()}

WORKLOAD_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "notifications": {"start_block_size": 8, "max_block_size": 16 * KIB},
    "metadata": {"max_block_size": 4 * KIB, "max_batch_size": 1024, "num_iter": 20, "warmup_iter": 2},
}
"""Defaults that suit a workload better."""

SHORTHANDS: Final = {
    "block_size": ("start_block_size", "max_block_size"),
    "batch_size": ("start_batch_size", "max_batch_size"),
}
"""Names that set two options to one value."""

_UNITS: Final = {"": 1, "k": KIB, "m": MIB, "g": GIB}


def parse_size(text: str) -> int:
    """Return a number of bytes: ``4096``, ``64K``, ``64KiB``, ``8G``; units are powers of 1024.

    Raises:
        ConfigurationError: It is not one.
    """
    bare = text.strip().lower().removesuffix("b").removesuffix("i")
    number, unit = (bare[:-1], bare[-1]) if bare[-1:] in ("k", "m", "g") else (bare, "")
    if not number.isdecimal():
        raise ConfigurationError(f"{text!r} is no size: give bytes, as 4096, 64KiB or 8GiB")
    return int(number) * _UNITS[unit]
