from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trunkline.bench.kv.configuration import RunShape, read_run_shape
from trunkline.bench.kv.model import known_models
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

KVBENCH = """
strategy: {tp_size: 8, pp_size: 2, model_quant_mode: fp8, kvcache_quant_mode: fp8}
runtime: {isl: 10000, osl: 2048, num_requests: 10}
system: {hardware: H100, backend: SGLANG, access_pattern: block, page_size: 256}
"""


def test_kvbench_run(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(KVBENCH)
    shape = RunShape(**read_run_shape(path))
    assert shape == RunShape(
        tp=8, pp=2, precision="fp8", isl="10000", osl="2048", access_pattern="block", page_size=256
    )
    plan = shape.plan(known_models()["llama-3.1-8b"])
    assert plan.shape.bits == 8
    assert plan.block_size.tolist() == [256 * 16 * 128 * 2] * 16


def test_decode_ranks_are_as_many_unless_said() -> None:
    plan = RunShape(tp=2, pp=2).plan(known_models()["llama-3.1-8b"])
    assert len(plan.decode.page_bytes) == 4
    plan = RunShape(tp=2, pp=2, decode_tp=8).plan(known_models()["llama-3.1-8b"])
    assert len(plan.decode.page_bytes) == 16


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("other: {}", "has 'other' at its top"),
        ("strategy: 5", "has 'strategy' at its top"),
        ("strategy: {ep_size: 5}", "has 'ep_size' in strategy; there may be tp_size"),
        ("strategy: {tp_size: x}", "has 'x' as tp; it must be a number"),
        ("runtime: {num_requests: true}", "has True as num_requests"),
        ("system: {access_pattern: row}", "it must be block or layer"),
    ],
)
def test_files_that_cannot_be_used(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        read_run_shape(path)
