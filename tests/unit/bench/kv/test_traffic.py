from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trunkline.bench.kv.traffic import Pattern, Traffic, check_memory, parse_size, read_traffic
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ONE = "traffic_pattern:\n  mem_type: cpu\n  matrix: [[0, 1M], [4K, 0]]\n"


@pytest.mark.parametrize(
    ("text", "size"),
    [(0, 0), (4096, 4096), ("4K", 4096), ("1M", 1 << 20), ("1.5k", 1536), ("2G", 2 << 30), ("710M", 710 << 20),
     ("1MiB", 1 << 20), (1.0, 1), (1.5, None), ("1.5", None), ("", None), ("x", None), ("-1", None), (-1, None),
     (True, None), (None, None), ("1T", None), ("nan", None), (1e300, None), ("999999999G", None), ([1], None)],
)  # fmt: skip
def test_sizes(text: object, size: int | None) -> None:
    assert parse_size(text) == size


def test_one_pattern(tmp_path: Path) -> None:
    path = tmp_path / "traffic.yaml"
    path.write_text(ONE + "iters: 50\nwarmup_iters: 0\n")
    traffic = read_traffic(path)
    assert (traffic.ranks, traffic.iterations, traffic.warmup, traffic.isolated) == (2, 50, 0, 30)
    (pattern,) = traffic.patterns
    assert pattern.matrix.tolist() == [[0, 1 << 20], [4096, 0]]
    assert (pattern.memory, pattern.op_type, pattern.sleep) == ("DRAM", "WRITE", 0.0)
    assert (pattern.total_bytes, pattern.senders) == ((1 << 20) + 4096, 2)


def test_patterns_in_files_beside(tmp_path: Path) -> None:
    (tmp_path / "matrices").mkdir()
    (tmp_path / "matrices" / "one.txt").write_text("0 0 1M\n0 0 1M\n\n0 0 0\n")
    path = tmp_path / "traffic.yaml"
    path.write_text(
        "traffic_patterns:\n"
        "- {matrix_file: matrices/one.txt, mem_type: cuda, xfer_op: read, sleep_before_launch_sec: 0.5,"
        " shards: 1, metadata: {isl: 5}}\n"
        "- {matrix: [[0, 1, 1], [0, 0, 0], [0, 0, 0]], mem_type: dram}\n"
    )
    first, second = read_traffic(path).patterns
    assert first.matrix.tolist() == [[0, 0, 1 << 20], [0, 0, 1 << 20], [0, 0, 0]]
    assert (first.memory, first.op_type, first.sleep, first.senders) == ("VRAM", "READ", 0.5, 2)
    assert second.total_bytes == 2


@given(arrays(np.int64, (4, 4), elements=st.integers(0, 9)))
def test_blocks_cover_each_ranks_memory_without_a_gap(matrix: NDArray[np.int64]) -> None:
    np.fill_diagonal(matrix, 0)
    blocks = Pattern(matrix=matrix).blocks()
    assert blocks[:, 2].sum() == matrix.sum()
    for rank in range(4):
        for own, offset in ((0, 3), (1, 4)):
            mine = blocks[blocks[:, own] == rank]
            mine = mine[np.argsort(mine[:, offset])]
            assert mine[:, offset].tolist() == (np.cumsum(mine[:, 2]) - mine[:, 2]).tolist()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iters: 1\n", "must have either traffic_pattern or traffic_patterns"),
        (ONE + "traffic_patterns: []\n", "must have either"),
        ("traffic_patterns: []\n", "a list of 1 to 1,000 traffic_patterns"),
        ("traffic_patterns: 5\n", "a list of 1 to 1,000 traffic_patterns"),
        ("traffic_pattern: 5\n", "has no mapping as pattern 1"),
        (ONE + "storage: 1\n", "has storage at its top"),
        (ONE + "  storage: {read: [1, 1]}\n", "has storage in pattern 1"),
        (ONE + "  tp_file: x\n", "has tp_file in pattern 1"),
        (ONE + "  matrix_file: x\n", "either matrix or matrix_file"),
        (ONE + "  shards: 2\n", "has 2 shards"),
        (ONE + "  xfer_op: COPY\n", "has 'COPY' as xfer_op"),
        (ONE + "  sleep_before_launch_sec: -1\n", "has -1 as sleep_before_launch_sec"),
        (ONE + "  sleep_before_launch_sec: .nan\n", "has nan as sleep_before_launch_sec"),
        (ONE.replace("cpu", "tape"), "has 'tape' as mem_type"),
        (ONE.replace("1M", "1X"), "has '1X' in row 0, column 1 of pattern 1"),
        (ONE.replace("[0, 1M]", "[0, 1M, 0]"), "has 3 columns in row 0"),
        (ONE.replace("[0, 1M]", "5"), "has no list of columns in row 0"),
        (ONE.replace("[0, 1M]", "[1, 1M]"), "has rank 0 send 1 to itself"),
        (ONE.replace("1M", "0").replace("4K", "0"), "nothing but zeros"),
        (ONE.replace("[[0, 1M], [4K, 0]]", "[[0]]"), "no matrix of 2 to"),
        (ONE + "iters: 0\n", "has 0 as iters"),
        (ONE + "isolation_iters: yes\n", "has True as isolation_iters"),
        ("traffic_pattern: {matrix_file: none.txt}\n", "none.txt can't be read"),
        ("traffic_pattern: {matrix_file: 5}\n", "has 5 as matrix_file"),
        ("traffic_patterns:\n- matrix: [[0, 1], [0, 0]]\n- matrix: [[0, 1, 0], [0, 0, 0], [0, 0, 0]]\n",
         "has 3 ranks in pattern 2, and 2 in the first"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "traffic.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=words) as error:
        read_traffic(path)
    assert str(tmp_path) in str(error.value)


def test_a_short_file_that_asks_for_much(tmp_path: Path) -> None:
    path = tmp_path / "traffic.yaml"
    zeros = ", 0" * 998
    path.write_text(
        f"traffic_patterns:\n- matrix: &matrix\n  - [0, 1{zeros}]\n  - &row [0, 0{zeros}]\n"
        + "  - *row\n" * 998
        + "- {matrix: *matrix}\n" * 9
    )
    with pytest.raises(ConfigurationError, match="more than 4,194,304 cells"):
        read_traffic(path)


def test_memory_of_gpus() -> None:
    ours, theirs = Pattern(matrix=np.array([[0, 1], [0, 0]])), Pattern(matrix=np.array([[0, 1], [0, 0]]), memory="VRAM")
    check_memory(Traffic(patterns=(ours,), iterations=1, warmup=0, isolated=1))
    with pytest.raises(ConfigurationError, match="pattern 2 wants memory of GPUs"):
        check_memory(Traffic(patterns=(ours, theirs), iterations=1, warmup=0, isolated=1))


def test_memory_is_for_the_largest_pattern() -> None:
    patterns = tuple(Pattern(matrix=np.array(rows)) for rows in ([[0, 5], [3, 0]], [[0, 1], [9, 0]]))
    assert Traffic(patterns=patterns, iterations=1, warmup=0, isolated=1).rank_bytes.tolist() == [[5, 9], [9, 5]]
