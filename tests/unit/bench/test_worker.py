from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.unit.bench.workers import run_workers

from trunkline.bench.options import KIB, Options
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trunkline.bench.engine.contract import Engine
    from trunkline.memory.descriptor import DescriptorList
    from trunkline.testing.s3 import S3Server

SMALL: dict[str, Any] = {
    "start_block_size": 4 * KIB,
    "max_block_size": 16 * KIB,
    "max_batch_size": 2,
    "num_iter": 12,
    "warmup_iter": 2,
    "check_consistency": True,
    "device_list": "lo",
}


def run(count: int, **changes: Any) -> Any:
    return run_workers(*[Options(**SMALL | changes)] * count)


@pytest.mark.parametrize("op_type", ["READ", "WRITE"])
def test_every_size_gives_a_row_and_every_block_arrives(op_type: str) -> None:
    found = run(2, op_type=op_type)
    assert [(row.block_size, row.batch_size) for row in found.rows] == [
        (size * KIB, batch) for size in (4, 8, 16) for batch in (1, 2)
    ]
    for row in found.rows:
        assert row.op_type == op_type
        assert row.wrong == 0
        assert row.iterations == 12
        assert row.aggregate_gb_s is None
        assert row.bandwidth_gb_s > 0
        assert row.latency_avg_us >= (row.transfer_p50_us or 0) / 2
        assert row.transport not in ("", "ucx")
    assert [(link.initiator, link.target) for link in found.links] == [(0, 1)]


@pytest.mark.parametrize(
    ("count", "changes", "pairs"),
    [
        (4, {"scheme": "pairwise"}, 2),
        (3, {"scheme": "manytoone"}, 2),
        (3, {"scheme": "onetomany"}, 2),
        (3, {"scheme": "tp", "num_target_dev": 2}, 2),
        (2, {"mode": "MG", "num_initiator_dev": 2, "num_target_dev": 3}, 1),
        (2, {"bidirectional": True}, 2),
        (2, {"num_threads": 2, "pipeline_depth": 3}, 1),
        (2, {"num_threads": 2, "pipeline_depth": 4, "num_iter": 3, "warmup_iter": 0}, 1),
        (2, {"recreate_xfer": True}, 1),
        (2, {"recreate_xfer": True, "prepared_xfer": True}, 1),
        (3, {"reregister_mem": True, "scheme": "onetomany", "num_threads": 2, "pipeline_depth": 2}, 2),
        (2, {"rate": 2000.0, "pipeline_depth": 4}, 1),
        (2, {"backend": "CMA", "device_list": "all"}, 1),
    ],
)
@pytest.mark.parametrize("op_type", ["READ", "WRITE"])
def test_every_way_to_move_blocks_moves_all_of_them(
    count: int, changes: dict[str, Any], pairs: int, op_type: str
) -> None:
    found = run(count, op_type=op_type, workers=count, **changes)
    assert [row.wrong for row in found.rows] == [0] * 6, found.warnings
    assert {row.pairs for row in found.rows} == {pairs}
    assert all((row.aggregate_gb_s is None) == (pairs == 1) for row in found.rows)


@pytest.mark.parametrize("mode", ["none", "blockaligned", "bytealigned"])
@pytest.mark.parametrize("op_type", ["READ", "WRITE"])
def test_files_are_measured_alone(tmp_path: Path, op_type: str, mode: str) -> None:
    found = run(
        1, backend="POSIX", op_type=op_type, device_list="all", filepath=str(tmp_path), num_files=2,
        randomize_location_mode=mode,
    )  # fmt: skip
    assert [row.wrong for row in found.rows] == [0] * 6, found.warnings
    assert {row.target_seg_type for row in found.rows} == {"FILE"}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("op_type", ["READ", "WRITE"])
def test_objects_are_measured_alone(s3: S3Server, bucket: str, op_type: str) -> None:
    found = run(
        1, backend="OBJ", op_type=op_type, device_list="all", num_iter=4, pipeline_depth=2, obj_bucket_name=bucket,
        obj_access_key=s3.access_key_id, obj_secret_key=s3.secret_access_key, obj_endpoint_override=s3.endpoint,
        obj_region="us-east-1",
    )  # fmt: skip
    assert [row.wrong for row in found.rows] == [0] * 6, found.warnings
    assert {row.target_seg_type for row in found.rows} == {"OBJECT"}


class Corrupting:
    """An engine whose worker's memory changes by itself, at one byte, before it is checked."""

    def __init__(self, engine: Engine, offset: int) -> None:
        self._engine = engine
        self._offset = offset
        self._memory: list[DescriptorList] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def register(self, descriptors: DescriptorList, keys: Sequence[str] = ()) -> None:
        self._engine.register(descriptors, keys)
        self._memory.append(descriptors)

    def prepare(self, operation: Any, sides: Any) -> Any:
        return CorruptingRequest(self._engine.prepare(operation, sides), self._memory[0], self._offset)


class CorruptingRequest:
    def __init__(self, request: Any, memory: DescriptorList, offset: int) -> None:
        self._request = request
        self._address = int(memory.rows[0, 0]) + offset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)

    def wait(self, timeout: float) -> None:
        import ctypes

        self._request.wait(timeout)
        byte = ctypes.c_ubyte.from_address(self._address)
        byte.value ^= 1 << (byte.value & 7)


def test_a_corrupted_byte_is_caught_and_located() -> None:
    options = Options(**SMALL | {"op_type": "READ", "max_block_size": 4 * KIB, "max_batch_size": 1, "num_iter": 1})
    found = run_workers(options, options, wrap=lambda engine: Corrupting(engine, 1234))
    assert [row.wrong for row in found.rows] == [1]
    assert "differs first at offset 1,234" in found.warnings[0]
    assert "from rank 1 to rank 0" in found.warnings[0]


class Idle:
    """An engine that says that all is done, and moves nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def prepare(self, operation: Any, sides: Any) -> Any:
        return IdleRequest()


class IdleRequest:
    def post(self) -> None: ...

    def poll(self) -> bool:
        return True

    def wait(self, timeout: float) -> None: ...


class Counting:
    """An engine that tells how much memory is registered."""

    def __init__(self, engine: Engine, counts: dict[str, list[int]]) -> None:
        self._engine = engine
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def register(self, descriptors: DescriptorList, keys: Sequence[str] = ()) -> None:
        self._engine.register(descriptors, keys)
        self._counts["registered"].append(descriptors.count)

    def deregister(self, descriptors: DescriptorList) -> None:
        self._engine.deregister(descriptors)
        self._counts["deregistered"].append(descriptors.count)


def test_memory_is_registered_anew_for_each_transfer() -> None:
    counts: dict[str, list[int]] = {"registered": [], "deregistered": []}
    changes = {"reregister_mem": True, "max_block_size": 4 * KIB, "max_batch_size": 1, "num_iter": 5, "warmup_iter": 0}
    options = Options(**SMALL | changes)
    found = run_workers(options, options, wrap=lambda engine: Counting(engine, counts))
    assert [row.wrong for row in found.rows] == [0]
    made = 1 + 5  # by the first request, which is not measured, and by each that is
    assert len(counts["deregistered"]) == made
    assert len(counts["registered"]) == made + 2  # each side's


@pytest.mark.parametrize("op_type", ["READ", "WRITE"])
def test_blocks_that_never_came_are_wrong(op_type: str) -> None:
    options = Options(**SMALL | {"op_type": op_type})
    found = run_workers(options, options, wrap=Idle)
    assert [row.wrong for row in found.rows] == [1, 2] * 3


@pytest.mark.parametrize("op_type", ["READ", "WRITE"])
@pytest.mark.parametrize("changes", [{}, {"workers": 4}, {"mode": "MG", "num_target_dev": 2}])
def test_bare_ucx_is_a_limit(op_type: str, changes: dict[str, Any]) -> None:
    found = run(changes.get("workers", 2), op_type=op_type, limit="ucx", **changes)
    for row in found.rows:
        assert row.wrong == 0
        assert row.limit_gb_s > 0
        assert row.limit_percent == pytest.approx(100 * row.bandwidth_gb_s / row.limit_gb_s)


def test_workers_that_want_different_things_are_told_which() -> None:
    one = Options(**SMALL)
    other = Options(**SMALL | {"num_iter": 13})
    with pytest.raises(ConfigurationError, match=r"--num-iter is 12 at rank 0 .* and 13 at rank 1") as error:
        run_workers(one, other)
    assert error.value.context["option"] == "num_iter"


def test_without_a_check_nothing_is_said_of_wrong_blocks() -> None:
    found = run(2, check_consistency=False, max_block_size=4 * KIB)
    assert [row.wrong for row in found.rows] == [None, None]
    assert np.isfinite([row.bandwidth_gb_s for row in found.rows]).all()


class Late(Idle):
    """An engine; the second of them to begin takes its time, or until the first one is measured."""

    def __init__(self, engine: Engine, posts: list[Engine], is_measured: threading.Event) -> None:
        super().__init__(engine)
        self._posts = posts
        self._is_measured = is_measured

    def prepare(self, operation: Any, sides: Any) -> Any:
        return LateRequest(self._engine, self._posts, self._is_measured)


class LateRequest(IdleRequest):
    def __init__(self, engine: Engine, posts: list[Engine], is_measured: threading.Event) -> None:
        self._engine = engine
        self._posts = posts
        self._is_measured = is_measured

    def post(self) -> None:
        self._posts.append(self._engine)
        if self._posts.count(self._engine) > 2:  # those of the warm-up
            self._is_measured.set()
        elif self._posts[0] is not self._engine:
            self._is_measured.wait(0.1)


def test_nobody_is_measured_while_others_warm_up() -> None:
    posts: list[Engine] = []
    is_measured = threading.Event()
    options = Options(
        **SMALL | {"max_block_size": 4 * KIB, "max_batch_size": 1, "check_consistency": False, "workers": 4}
    )
    run_workers(*[options] * 4, wrap=lambda engine: Late(engine, posts, is_measured))
    assert [posts[:4].count(engine) for engine in set(posts)] == [2, 2]
