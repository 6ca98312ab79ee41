"""What a model keeps of each token: its layers, KV heads, head size and element type."""

from __future__ import annotations

import difflib
import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from trunkline.bench.kv.document import read_mapping
from trunkline.errors import ConfigurationError
from trunkline.memory.dtype import DTYPES, NAME_OF_ALIAS

PRECISIONS = {"fp32": 32, "bf16": 16, "bfloat16": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp4": 4, "int4": 4}
"""Bits of an element by the names of precisions. Scales that go with the small ones are not counted."""

MAX_LAYERS, MAX_HEADS, MAX_HEAD_SIZE = 10_000, 10_000, 1 << 20
MAX_TOKEN_BYTES = 1 << 30
"""Of all layers and heads: sizes of whole requests stay within 64 bits."""
_MODELS = msgspec.json.Decoder(dict[str, dict[str, Any]])
_KVBENCH = {
    "num_layers": "num_hidden_layers",
    "num_kv_heads": "num_key_value_heads",
    "query_head_dimension": "head_dim",
    "mla_latent_vector_dimension": "kv_lora_rank",
    "rope_mla_dimension": "qk_rope_head_dim",
}
"""KVBench's keys, and those of a published config.json that mean the same."""


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """What one model keeps of a token.

    With multi-head latent attention (MLA) a layer keeps one vector for all heads, which counts as one head
    with one part; else each KV head keeps a key and a value.

    Attributes:
        name: The model's.
        layers: How many layers keep something.
        kv_heads: KV heads of a layer; 1 with MLA.
        head_size: Elements of one key, or of one value; with MLA of the latent vector and the rotary key.
        bits: Of one element.
        is_mla: Whether the model has multi-head latent attention.
    """

    name: str
    layers: int
    kv_heads: int
    head_size: int
    bits: int
    is_mla: bool = False

    def __post_init__(self) -> None:
        for what, value, most in (
            ("layers", self.layers, MAX_LAYERS),
            ("KV heads", self.kv_heads, MAX_HEADS),
            ("elements in a head", self.head_size, MAX_HEAD_SIZE),
        ):
            if not 1 <= value <= most:
                raise ConfigurationError(f"model {self.name!r} has {value} {what}; it must be 1 to {most:,}")
        if self.head_size * self.bits % 8:
            raise ConfigurationError(
                f"model {self.name!r}: {self.head_size} elements of {self.bits} bits are no whole number of bytes"
            )
        if self.token_bytes > MAX_TOKEN_BYTES:
            raise ConfigurationError(
                f"model {self.name!r} keeps {self.token_bytes:,} bytes of each token; it must be at most "
                f"{MAX_TOKEN_BYTES:,}"
            )

    @property
    def parts(self) -> int:
        """What a head keeps of a token: key and value, 2; with MLA 1."""
        return 1 if self.is_mla else 2

    @property
    def part_bytes(self) -> int:
        """Bytes of one part of one token in one head of one layer."""
        return self.head_size * self.bits // 8

    @property
    def token_bytes(self) -> int:
        """Bytes of one token in all layers and heads."""
        return self.layers * self.kv_heads * self.parts * self.part_bytes

    def with_precision(self, precision: str) -> ModelShape:
        """Return the shape with elements of another precision, one of PRECISIONS.

        Raises:
            ConfigurationError: There is no such precision, or a head would not be a whole number of bytes.
        """
        bits = PRECISIONS.get(precision.lower())
        if bits is None:
            raise ConfigurationError(f"no precision {precision!r}; there are {', '.join(PRECISIONS)}")
        return msgspec.structs.replace(self, bits=bits)


@cache
def known_models() -> dict[str, ModelShape]:
    """Return the shapes that come with Trunkline, by name."""
    content = resources.files("trunkline.bench.kv").joinpath("models.json").read_bytes()
    return {name: shape_of_config(name, config) for name, config in _MODELS.decode(content).items()}


def find_model(model: str) -> ModelShape:
    """Return the shape of a model.

    Args:
        model: A name of known_models, whatever its case, with ``_`` for ``-``; or the path of a file: the
            config.json that the model was published with, or KVBench's YAML.

    Raises:
        ConfigurationError: There is neither such a name nor such a file, or the file does not say it.
    """
    name = model.lower().replace("_", "-")
    if name in known_models():
        return known_models()[name]
    path = Path(model)
    if path.suffix.lower() not in {".json", ".yaml", ".yml"}:
        close = difflib.get_close_matches(name, known_models(), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigurationError(
            f"no model {model!r}: {hint}there are {', '.join(known_models())}; "
            "for another give its config.json, or KVBench's YAML"
        )
    return shape_of_config(os.fsencode(model).decode(errors="replace"), _published_keys(read_mapping(path)))


def shape_of_config(name: str, config: dict[str, Any]) -> ModelShape:
    """Return the shape that a published configuration describes.

    Args:
        name: The model's, for messages.
        config: What its config.json holds; what is not about the cache is passed over.

    Raises:
        ConfigurationError: Something is missing or no number, or some layers keep something else than keys and values.
    """
    kinds = config.get("layer_types")
    others = (
        set()
        if not isinstance(kinds, list)
        else {str(kind) for kind in kinds}
        - {
            "full_attention",
            "sliding_attention",
        }
    )
    if "index_head_dim" in config:
        others.add("sparse attention with an index")
    if others:
        raise ConfigurationError(
            f"model {name!r} has {', '.join(sorted(others))}, which keeps other things than keys and values of tokens; "
            "only models whose layers all have attention can be described"
        )
    layers = _number(name, config, "num_hidden_layers")
    bits = _bits(name, config)
    if "kv_lora_rank" in config:
        size = _number(name, config, "kv_lora_rank") + _number(name, config, "qk_rope_head_dim")
        return ModelShape(name=name, layers=layers, kv_heads=1, head_size=size, bits=bits, is_mla=True)
    return ModelShape(
        name=name,
        layers=layers,
        kv_heads=_number(name, config, "num_key_value_heads"),
        head_size=_number(name, config, "head_dim")
        if config.get("head_dim") is not None
        else _number(name, config, "hidden_size") // _number(name, config, "num_attention_heads"),
        bits=bits,
    )


def _published_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Return KVBench's keys as a published config.json has them; others as they are."""
    found = {_KVBENCH.get(key, key): value for key, value in config.items()}
    heads, group = config.get("num_query_heads_with_mha"), config.get("gqa_num_queries_in_group")
    if isinstance(heads, int) and isinstance(group, int) and group > 0:
        found.setdefault("num_key_value_heads", heads // group)
    return found


def _number(name: str, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        said = "is missing" if key not in config else f"is {value!r}"
        raise ConfigurationError(f"model {name!r}: {key} {said}; it must be a number, at least 1")
    return value


def _bits(name: str, config: dict[str, Any]) -> int:
    alias = config.get("torch_dtype") or config.get("dtype") or "bfloat16"
    element = NAME_OF_ALIAS.get(alias) if isinstance(alias, str) else None
    if element is None:
        raise ConfigurationError(f"model {name!r}: torch_dtype is {alias!r}, which is no type of elements")
    return DTYPES[element].bits
