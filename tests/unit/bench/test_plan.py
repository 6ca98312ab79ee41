from __future__ import annotations

from typing import Any

import pytest

from trunkline.bench.options import KIB, MIB, Options
from trunkline.bench.plan import Step, check_options, ignored_options, plan_steps
from trunkline.errors import ConfigurationError


def test_sizes_double_and_large_blocks_are_moved_less_often() -> None:
    options = Options(start_block_size=MIB, max_block_size=2 * MIB, max_batch_size=3, num_iter=160, warmup_iter=32)
    assert plan_steps(options) == [
        Step(0, MIB, 1, 160, 32),
        Step(1, MIB, 2, 160, 32),
        Step(2, 2 * MIB, 1, 10, 2),
        Step(3, 2 * MIB, 2, 10, 2),
    ]


def test_every_thread_does_as_many_iterations_and_none_is_lost() -> None:
    (step,) = plan_steps(Options(max_block_size=4 * KIB, num_iter=10, num_threads=4, warmup_iter=1))
    assert (step.iterations, step.warmup) == (3, 1)


def test_there_is_always_something_to_measure() -> None:
    assert {step.iterations for step in plan_steps(Options(num_iter=1))} == {1}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"filepath": "x"}, "--filepath is for POSIX and GDS and GDS_MT, and the backend is UCX"),
        ({"backend": "POSIX", "device_list": "lo"}, "--device-list is for UCX"),
        ({"start_block_size": 8 * KIB, "max_block_size": 4 * KIB}, "--start-block-size 8192 is more than"),
        ({"max_batch_size": 1024}, r"68,719,476,736 bytes of one transfer.*--total-buffer-size 8,589,934,592"),
        ({"num_threads": 200}, "for each of 200 threads"),
        ({"initiator_seg_type": "VRAM"}, "--initiator-seg-type VRAM: the benchmark allocates host memory only"),
        ({"target_seg_type": "VRAM"}, "--target-seg-type VRAM"),
        ({"reregister_mem": True, "prepared_xfer": True}, "leave one out"),
        ({"limit": "ucx", "backend": "CMA", "device_list": "all"}, "leave it out with another --backend"),
        ({"limit": "ucx", "limit_gbps": 5.0}, "and with --limit-gbps"),
        ({"posix_ios_pool_size": 5}, "--posix-ios-pool-size is for POSIX"),
        ({"engine": "nixl", "backend": "CMA"}, "--engine nixl is measured with UCX and POSIX"),
        ({"progress_threads": 2}, "Trunkline's agents have one"),
        ({"backend": "POSIX", "local": 2}, "it runs alone"),
        ({"backend": "POSIX", "bidirectional": True}, "it runs alone"),
        ({"csv": "-", "json": "-"}, "--csv - and --json - would go to standard output together"),
        ({"local": 2, "etcd_endpoints": "http://h:2379"}, "--local starts all workers and an etcd of their own"),
        ({"workers": 3}, "pairs need an even number"),
        ({"workload": "notifications", "num_threads": 2}, "has no use for --num-threads"),
        ({"workload": "metadata", "engine": "both", "workers": 2}, "an initiator and a target"),
        ({"workload": "metadata", "workers": 4}, "2 of them"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_starts(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        check_options(Options(**changes))


def test_what_is_set_and_changes_nothing_is_told() -> None:
    assert ignored_options(Options(backend="POSIX", posix_api_type="URING", num_iter=5)) == [
        "--posix-api-type is ignored: the POSIX backend has one way to do it"
    ]


def test_the_defaults_fit_together() -> None:
    check_options(Options())
    check_options(Options(backend="POSIX"))


@pytest.mark.parametrize(
    ("changes", "who", "needed"),
    [
        ({"local": 2}, "2 workers take", 2 * MIB),
        ({"local": 4, "bidirectional": True}, "4 workers take", 8 * MIB),
        ({"pipeline_depth": 3}, "this worker takes", 3 * MIB),
    ],
)
def test_more_memory_than_the_machine_has_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], who: str, needed: int
) -> None:
    options = Options(max_block_size=MIB, **changes)
    monkeypatch.setattr("trunkline.bench.plan.available_memory", lambda: needed)
    check_options(options)
    monkeypatch.setattr("trunkline.bench.plan.available_memory", lambda: needed - 1)
    with pytest.raises(ConfigurationError, match=rf"{who} {needed:,} bytes .* has {needed - 1:,} available"):
        check_options(options)
    monkeypatch.setattr("trunkline.bench.plan.available_memory", lambda: None)
    check_options(options)
