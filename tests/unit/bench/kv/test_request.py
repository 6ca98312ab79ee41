from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.bench.kv import request
from trunkline.bench.kv.request import draw_lengths, read_trace
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

MOONCAKE = (
    '{"timestamp": 0, "input_length": 7, "output_length": 2, "hash_ids": [1]}\n\n'
    '{"input_length": 9.0, "output_length": 0}'
)


def test_fixed_lengths() -> None:
    lengths = draw_lengths("8192", "0", 3)
    assert lengths.inputs.tolist() == [8192] * 3
    assert lengths.outputs.tolist() == [0] * 3


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(0, 1 << 32))
def test_uniform_lengths_lie_between(low: int, more: int, seed: int) -> None:
    lengths = draw_lengths(f"uniform:{low}:{low + more}", "1", 50, seed=seed)
    assert low <= lengths.inputs.min() <= lengths.inputs.max() <= low + more
    again = draw_lengths(f"uniform:{low}:{low + more}", "uniform:0:9", 50, seed=seed)
    assert again.inputs.tolist() == lengths.inputs.tolist()


def test_lognormal_lengths_have_their_median() -> None:
    drawn = draw_lengths("lognormal:4000:1", "lognormal:300:0", 20_000, seed=1)
    assert np.median(drawn.inputs) == pytest.approx(4000, rel=0.05)
    assert np.std(np.log(drawn.inputs)) == pytest.approx(1, rel=0.05)
    assert set(drawn.outputs.tolist()) == {300}
    assert draw_lengths("lognormal:1:10", "0", 1000).inputs.min() == 1


def test_another_seed_draws_others() -> None:
    assert not np.array_equal(
        draw_lengths("uniform:1:9999", "1", 9, seed=1).inputs, draw_lengths("uniform:1:9999", "1", 9, seed=2).inputs
    )


@pytest.mark.parametrize(
    "inputs",
    ["", "x", "0", "1.5", "-1", "nan", "inf", "10000001", "uniform:2:1", "uniform:1", "uniform:1:2:3", "uniform:1.5:2",
     "normal:1:2", "lognormal:0:1", "lognormal:5:-1", "lognormal:5:nan", "uniform:a:b"],
)  # fmt: skip
def test_distributions_that_are_none(inputs: str) -> None:
    with pytest.raises(ConfigurationError, match="is no distribution of lengths"):
        draw_lengths(inputs, "1", 1)


@pytest.mark.parametrize("count", [0, -1, 10**7])
def test_numbers_of_requests_that_cannot_be(count: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{count} requests"):
        draw_lengths("1", "1", count)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mooncake", MOONCAKE),
        ("azure.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6,7,2\n\n2023-11-16,9,0\n"),
        ("burst.csv", '\ufeffTimestamp,Model,Request tokens,Response tokens\r\n5,"a,\nb",7,2\r\n6,x,9,0\r\n'),
    ],
)  # fmt: skip
def test_traces(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content, newline="")
    lengths = read_trace(path)
    assert lengths.inputs.tolist() == [7, 9]
    assert lengths.outputs.tolist() == [2, 0]
    assert read_trace(path, 1).inputs.tolist() == [7]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has none of the columns input_length"),
        ("input_length,output_length\n", "holds no request"),
        ("input_length,b\n1,2\n", "none of the columns output_length.* in its header"),
        ("input_length,output_length\n1\n", "has 1 columns in line 2, and 2 in its header"),
        ("input_length,output_length\n1,2\nx,2\n", "'x' input tokens in line 3"),
        ("input_length,output_length\n0,2\n", "'0' input tokens in line 2"),
        ("input_length,output_length\n1,-2\n", "'-2' output tokens in line 2"),
        ("input_length,output_length\n1,1.5\n", "'1.5' output tokens"),
        ("input_length,output_length\n1,nan\n", "'nan' output tokens"),
        ("input_length,output_length\n10000001,1\n", "'10000001' input tokens"),
        ('input_length,output_length\n"' + "x" * 200_000 + '",1\n', "is no CSV in line 2"),
        ('{"input_length": 1}\n', "output_length.* in line 1"),
        ('{"input_length": 1, "output_length": 1}\n{"input_length', "has no JSON object in line 2"),
        ('{"input_length": 1, "output_length": 1}\n[1]', "has no JSON object in line 2"),
        ('{"input_length": null, "output_length": 1}\n', "'None' input tokens"),
        ('{"input_length": 1e999, "output_length": 1}\n', "no JSON object|'inf' input tokens"),
        ('{"input_length": ' + "9" * 400 + ', "output_length": 1}\n', "input tokens|no JSON object"),
        ('{"a": ' + "[" * 100_000, "has no JSON object in line 1"),
        ("x" * ((1 << 20) + 1), "more than 1,048,576 bytes in line 1"),
    ],
)
def test_traces_that_are_none(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=words) as error:
        read_trace(path)
    assert str(path) in str(error.value)


def test_a_trace_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(b"input_length,output_length\n\xff,1\n")
    with pytest.raises(ConfigurationError, match="is no UTF-8 in line 2"):
        read_trace(path)


def test_a_trace_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read: No such file"):
        read_trace(tmp_path / "trace")


def test_a_trace_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MAX_REQUESTS", 2)
    path = tmp_path / "trace"
    path.write_text("input_length,output_length\n" + "1,1\n" * 3)
    with pytest.raises(ConfigurationError, match="holds more than 2 requests"):
        read_trace(path)
    assert len(read_trace(path, 2).inputs) == 2


def test_an_endless_trace_is_read_as_far_as_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    try:
        os.write(writer, b"input_length,output_length\n1,1\n2,2\n3,3\n")
        assert read_trace(path, 2).inputs.tolist() == [1, 2]
    finally:
        os.close(writer)
