from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from trunkline.bench.kv.model import PRECISIONS, find_model, known_models, shape_of_config
from trunkline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

LLAMA: dict[str, Any] = {
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "torch_dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("name", "token_bytes"),
    [
        ("llama-3.1-8b", 32 * 8 * 128 * 2 * 2),
        ("llama-3.1-70b", 80 * 8 * 128 * 2 * 2),
        ("deepseek-r1", 61 * (512 + 64) * 2),
        ("qwen3-235b-a22b", 94 * 4 * 128 * 2 * 2),
        ("gpt-oss-120b", 36 * 8 * 64 * 2 * 2),
    ],
)
def test_bytes_of_a_token(name: str, token_bytes: int) -> None:
    assert known_models()[name].token_bytes == token_bytes


def test_names_in_other_spellings() -> None:
    assert find_model("DEEPSEEK_R1") == known_models()["deepseek-r1"]


def test_precision() -> None:
    shape = known_models()["llama-3.1-8b"]
    assert {name: shape.with_precision(name).token_bytes for name in ("fp32", "bf16", "FP8", "int4")} == {
        "fp32": 262_144,
        "bf16": 131_072,
        "FP8": 65_536,
        "int4": 32_768,
    }
    with pytest.raises(ConfigurationError, match=r"no precision 'fp7'; there are fp32, "):
        shape.with_precision("fp7")
    assert set(PRECISIONS.values()) == {4, 8, 16, 32}


def test_a_published_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA, "architectures": ["LlamaForCausalLM"]}))
    shape = find_model(str(path))
    assert (shape.layers, shape.kv_heads, shape.head_size, shape.bits, shape.is_mla) == (32, 8, 128, 16, False)


def test_head_size_that_is_no_quotient() -> None:
    assert shape_of_config("qwen", {**LLAMA, "head_dim": 64}).head_size == 64
    assert shape_of_config("qwen", {**LLAMA, "head_dim": None}).head_size == 128


def test_latent_attention_keeps_one_vector_whatever_the_heads() -> None:
    shape = shape_of_config("v3", {**LLAMA, "num_key_value_heads": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64})
    assert (shape.kv_heads, shape.parts, shape.head_size, shape.is_mla) == (1, 1, 576, True)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "num_layers: 32\nnum_query_heads_with_mha: 32\nquery_head_dimension: 128\ngqa_num_queries_in_group: 4\n",
            "llama-3.1-8b",
        ),
        ("num_layers: 36\nnum_query_heads: 64\nnum_kv_heads: 8\nquery_head_dimension: 64\n", "gpt-oss-120b"),
        (
            "num_layers: 61\nquery_head_dimension: 128\nrope_mla_dimension: 64\nmla_latent_vector_dimension: 512\n",
            "deepseek-r1",
        ),
    ],
)
def test_kvbench_models(text: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(text)
    assert find_model(str(path)).token_bytes == known_models()[name].token_bytes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers is None"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers"),
        ({"num_key_value_heads": "8"}, "num_key_value_heads is '8'"),
        ({"head_dim": 10**9}, "1000000000 elements in a head"),
        ({"num_key_value_heads": 10_000, "head_dim": 1 << 20}, "bytes of each token; it must be at most 1,073,741,824"),
        ({"torch_dtype": "float17"}, "torch_dtype is 'float17'"),
        ({"torch_dtype": ["x"]}, "torch_dtype is"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ({"index_head_dim": 128}, "sparse attention"),
    ],
)
def test_configurations_that_cannot_be(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        shape_of_config("mine", {**LLAMA, **change})


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationError, match="num_hidden_layers is missing"):
        shape_of_config("mine", {})


def test_sliding_attention_counts_whole() -> None:
    layers = {"layer_types": ["sliding_attention", "full_attention"] * 16}
    assert shape_of_config("mine", {**LLAMA, **layers}).layers == 32


def test_a_files_name_that_is_no_unicode(tmp_path: Path) -> None:
    path = tmp_path / "\udcff.json"
    path.write_text(json.dumps(LLAMA))
    assert find_model(str(path)).name == f"{tmp_path}/\ufffd.json"


def test_half_bytes_that_do_not_add_up() -> None:
    shape = shape_of_config("odd", {**LLAMA, "head_dim": 3})
    with pytest.raises(ConfigurationError, match="no whole number of bytes"):
        shape.with_precision("int4")


def test_unknown_names_get_a_hint() -> None:
    with pytest.raises(ConfigurationError, match=r"no model 'lama-3.1-8b': did you mean llama-3\.1-8b"):
        find_model("lama-3.1-8b")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[1]", "holds no mapping"),
        (b"{", "is no JSON"),
        (b"\xff", "is no UTF-8 from byte 0"),
        (b"[" * 100_000, "is no JSON"),
        (b" " * ((4 << 20) + 1), "is larger than 4,194,304 bytes"),
    ],
)
def test_files_that_are_none(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=words) as error:
        find_model(str(path))
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", ["a: [", "[" * 5000, "a: 2001-99-99", "- 1", "1: 2"])
def test_yaml_that_is_none(content: str, tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"model\.yaml (is no YAML|holds no mapping)"):
        find_model(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read: No such file"):
        find_model(str(tmp_path / "config.json"))


def test_what_to_install_for_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    path = tmp_path / "model.yaml"
    path.write_text("num_layers: 1\n")
    with pytest.raises(ConfigurationError, match=r"without PyYAML; run: pip install 'trunkline\[bench\]'"):
        find_model(str(path))
