from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner, Result

from trunkline.cli.bench_kv import kvcache
from trunkline.cli.bench_kv_run import _arguments
from trunkline.cli.main import app as main
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(kvcache)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_sizes_as_a_table() -> None:
    result = run("--model", "llama-3.1-8b", "--tp", "2", "--decode-tp", "4", "--isl", "100", "--num-requests", "1")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "CACHE OF             TOKENS  PAGES  SIZE",
        "a token              1              128.0 KiB",
        "a page               16      1      2.0 MiB",
        "the input            100     7      14.0 MiB",
        "all inputs           100     7      14.0 MiB",
        "what moves for them                 14.0 MiB",
        "",
        "RANKS  SIDE     LAYERS  KV HEADS  A PAGE     THE LONGEST INPUT",
        "0-1    prefill  32      4         1.0 MiB    7.0 MiB",
        "2-5    decode   32      2         512.0 KiB  3.5 MiB",
        "",
        "INITIATOR  TARGET  BLOCK SIZE (B)  BLOCKS  SIZE",
        "0          2       8192            448     3.5 MiB",
        "0          3       8192            448     3.5 MiB",
        "1          4       8192            448     3.5 MiB",
        "1          5       8192            448     3.5 MiB",
    ]


def test_the_sizes_as_json() -> None:
    result = run(
        "--model", "deepseek-r1", "--tp", "8", "--decode-tp", "1", "--isl", "1000", "--num-requests", "3",
        "--page-size", "64", "--access-pattern", "block", "--precision", "fp8", "--op-type", "read", "--json",
    )  # fmt: skip
    document = json.loads(result.stdout)
    page = 64 * 61 * 576
    assert document["format"] == "trunkline-kvcache/1"
    assert document["token_bytes"] == 61 * 576
    assert document["cache_bytes"] == document["moved_bytes"] == 3 * 16 * page
    assert document["flows"] == [
        {"initiator": 8, "target": 0, "block_size": page, "count": 16, "total_bytes": 16 * page}
    ]
    assert [rank["side"] for rank in document["ranks"]] == ["prefill"] * 8 + ["decode"]


def test_options_win_over_the_file_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "strategy: {tp_size: 4, kvcache_quant_mode: fp8}\nruntime: {isl: 10, num_requests: 5}\n"
        "system: {page_size: 2, access_pattern: block}\n"
    )
    found = json.loads(run("--model", "qwen3-8b", "--model-config", str(path), "--isl", "20", "--json").stdout)
    assert (found["bits"], found["page_size"], found["access_pattern"]) == (8, 2, "block")
    assert (found["requests"], found["input_tokens"], len(found["ranks"])) == (5, 100, 8)


def test_lengths_from_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("input_length,output_length\n5,1\n40,2\n7,3\n")
    found = json.loads(run("--model", "qwen3-8b", "--trace", str(path), "--json").stdout)
    assert (found["requests"], found["input_tokens"], found["output_tokens"], found["longest_pages"]) == (3, 52, 6, 3)
    found = json.loads(run("--model", "qwen3-8b", "--trace", str(path), "--num-requests", "1", "--json").stdout)
    assert found["requests"] == 1


def test_errors_say_which() -> None:
    with pytest.raises(ConfigurationError, match="tp 3 does not divide the 8 KV heads of qwen3-8b"):
        run("--model", "qwen3-8b", "--tp", "3")
    assert run("--model", "qwen3-8b", "--access-pattern", "row").exit_code == 2


def test_settings_of_the_benchmark_are_options_under_both_spellings() -> None:
    for command in (("requests", "--model", "qwen3-8b"), ("traffic", "none.yaml")):
        result = CliRunner().invoke(main, ["bench", *command, "--total_buffer_size", "64X"])
        assert result.exit_code == 1
        assert "64X" in result.stderr or "none.yaml" in result.stderr


def test_too_few_workers_are_told_before_any_starts() -> None:
    result = CliRunner().invoke(main, ["bench", "requests", "--model", "qwen3-8b", "--tp", "2", "--local", "2"])
    assert result.exit_code == 1
    assert result.stderr == (
        "trunkline: 2 workers can't be the 4 ranks asked for; start 4 (as with --local 4), or ask for others\n"
    )


def test_more_memory_than_there_may_be_is_told_before_any_worker_starts() -> None:
    arguments = ["--model", "qwen3-8b", "--isl", "10000", "--local", "2", "--total-buffer-size", "1GiB"]
    result = CliRunner().invoke(main, ["bench", "requests", *arguments])
    assert result.exit_code == 1
    assert "rank 0 needs 1,474,560,000 bytes of memory, and --total-buffer-size is 1,073,741,824" in result.stderr


def test_memory_of_gpus_is_told_before_any_worker_starts(tmp_path: Path) -> None:
    path = tmp_path / "traffic.yaml"
    path.write_text("traffic_pattern: {mem_type: cuda, matrix: [[0, 1], [0, 0]]}")
    result = CliRunner().invoke(main, ["bench", "traffic", str(path), "--local", "2"])
    assert result.exit_code == 1
    assert "--mem-type cpu" in result.stderr


def test_what_is_given_is_given_to_other_workers_too() -> None:
    own = {"model": "a b", "tp": None, "decode_tp": 2, "trace": None, "access_pattern": "block"}
    assert _arguments(own) == ["--model", "a b", "--decode-tp", "2", "--access-pattern", "block"]
