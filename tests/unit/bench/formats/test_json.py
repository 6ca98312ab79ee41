from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bench.sample import make_hostile, make_matrix, make_run

from trunkline.bench import formats
from trunkline.bench.formats.json import decode_json, encode_json, encode_schema, make_schema
from trunkline.bench.result import Row, Run
from trunkline.errors import ResultError

PUBLISHED = Path(__file__).parents[4] / "docs/bench-result.schema.json"


@pytest.mark.parametrize("run", [make_run(), make_matrix(3), make_hostile(), Run(rows=())])
def test_a_run_comes_back_as_it_was(run: Run, tmp_path: Path) -> None:
    formats.write(run, tmp_path / "run.json", "json")
    assert formats.read(tmp_path / "run.json") == run


def test_it_is_one_document_with_rows() -> None:
    document = json.loads(encode_json(make_run()))
    assert document["format"] == "trunkline-bench/1"
    assert {"block_size", "batch_size", "bandwidth_gb_s", "wrong", "transport"} <= set(document["rows"][0])


def changed(**changes: Any) -> bytes:
    document = json.loads(encode_json(make_run()))
    rows = document["rows"][0]
    for name, value in changes.items():
        (rows if name in rows else document)[name] = value
    return json.dumps(document).encode()


def test_what_a_newer_version_adds_is_passed_over() -> None:
    assert decode_json(changed(added_later=1), "a.json") == make_run()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "a.json is not a benchmark's result: Input data was truncated"),
        (b"{", "Input data was truncated"),
        (b"\xff\xfe", "a.json is not a benchmark's result"),
        (b"[]", "Expected `object`, got `array`"),
        (b"[" * 100_000, "a.json is not a benchmark's result"),
        (b"{}", "a.json says no format, and 'trunkline-bench/1' is what can be read"),
        (changed(format="trunkline-bench/9"), "a.json is of format 'trunkline-bench/9'"),
        (changed(block_size="big"), r"Expected `int`, got `str` - at `\$.rows\[0\].block_size`"),
        (changed(block_size=0), "a.json: row 0: block_size does not lie between 1 and 2"),
        (changed(pairs=10**4000), "row 0: pairs does not lie"),
        (changed(num_threads=-1), "row 0: num_threads does not lie between 0"),
        (changed(bandwidth_gb_s=-1.0), "row 0: bandwidth_gb_s does not lie"),
        (changed(bandwidth_gb_s=None), r"Expected `float`, got `null` - at `\$.rows\[0\].bandwidth_gb_s`"),
        (changed(latency_avg_us="SIZE").replace(b'"SIZE"', b"1e999"), "latency_avg_us"),
        (b'{"format": "trunkline-bench/1"}', "missing required field `rows`"),
    ],
)
def test_what_is_no_result_is_refused_with_the_place(data: bytes, words: str) -> None:
    with pytest.raises(ResultError, match=words):
        decode_json(data, "a.json")


def test_the_published_schema_is_current() -> None:
    assert PUBLISHED.read_bytes() == encode_schema()


def test_the_schema_names_every_field_and_says_what_is_needed() -> None:
    schema = make_schema()
    assert set(schema["$defs"]["Row"]["properties"]) == set(Row.__struct_fields__)
    assert schema["$defs"]["Run"]["required"] == ["rows"]
    assert {"block_size", "batch_size", "transport"} <= set(schema["$defs"]["Row"]["required"])
    assert "wrong" not in schema["$defs"]["Row"]["required"]
    described = schema["$defs"]["Row"]["properties"]["latency_avg_us"]["description"]
    assert described == "From the beginning of `prepare` (`post` where it is prepared once) to the end of a transfer."


def test_csv_and_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    formats.write(make_run(), "-", "csv")
    assert capfdbinary.readouterr().out.startswith(b"engine,backend,")
