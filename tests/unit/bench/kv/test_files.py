"""Files that describe workloads, with something else in the middle of them."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.bench.kv.configuration import read_run_shape
from trunkline.bench.kv.model import find_model
from trunkline.bench.kv.request import MAX_TOKENS, read_trace
from trunkline.bench.kv.traffic import read_traffic
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "config.json": (
        lambda path: find_model(str(path)),
        '{"num_hidden_layers": 3, "num_key_value_heads": 4, "head_dim": 64, "torch_dtype": "float16"}',
    ),
    "model.yaml": (
        lambda path: find_model(str(path)),
        "num_layers: 32\nnum_query_heads_with_mha: 32\nquery_head_dimension: 128\ngqa_num_queries_in_group: 4\n",
    ),
    "run.yaml": (read_run_shape, "strategy: {tp_size: 8}\nruntime: {isl: 100}\nsystem: {access_pattern: block}\n"),
    "traffic.yaml": (
        read_traffic,
        "iters: 5\ntraffic_patterns:\n- {mem_type: cpu, matrix: [[0, 1M], [4K, 0]]}\n- {matrix_file: traffic.yaml}\n",
    ),
    "trace.csv": (read_trace, "input_length,output_length\n7,2\n9,0\n"),
    "trace.jsonl": (read_trace, '{"input_length": 7, "output_length": 2}\n{"input_length": 9, "output_length": 0}\n'),
}

INSERTED = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [b"&a", b"*a", b"<<: ", b"!!python/object:os.system ", b"[", b"{", b"-1", b"1e9", b"9" * 30, b"null"]
    ),
)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_a_file_is_read_or_refused(name: str, data: st.DataObject) -> None:
    read, text = FILES[name]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 10)))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, name)
        path.write_bytes(text[:start].encode() + data.draw(INSERTED) + text[end:].encode())
        with contextlib.suppress(ConfigurationError):
            found = read(path)
            if name.startswith("trace"):
                assert isinstance(found, tuple)
                assert all(0 <= tokens <= MAX_TOKENS for column in found for tokens in column.tolist())
