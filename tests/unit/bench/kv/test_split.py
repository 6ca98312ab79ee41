from __future__ import annotations

import pytest

from trunkline.bench.kv.model import known_models
from trunkline.bench.kv.split import MAX_RANKS, Split, divide
from trunkline.errors import ConfigurationError

LLAMA, DEEPSEEK = known_models()["llama-3.1-8b"], known_models()["deepseek-r1"]


def test_heads_are_divided() -> None:
    shares = divide(LLAMA, Split(4))
    assert (shares.heads, shares.replicas) == (2, 1)
    assert shares.first_head.tolist() == [0, 2, 4, 6]
    assert shares.layers.tolist() == [32] * 4


def test_heads_are_replicated_where_there_are_more_ranks() -> None:
    shares = divide(LLAMA, Split(16))
    assert (shares.heads, shares.replicas) == (1, 2)
    assert shares.first_head.tolist() == [head for head in range(8) for _ in range(2)]
    assert shares.replica.tolist() == [0, 1] * 8


def test_latents_are_replicated_on_every_rank() -> None:
    shares = divide(DEEPSEEK, Split(8))
    assert (shares.heads, shares.replicas) == (1, 8)
    assert shares.first_head.tolist() == [0] * 8
    assert shares.replica.tolist() == list(range(8))


def test_layers_that_stages_do_not_divide() -> None:
    shares = divide(DEEPSEEK, Split(2, 4))
    assert shares.layers.tolist() == [16, 16, 15, 15, 15, 15, 15, 15]
    assert shares.first_layer.tolist() == [0, 0, 16, 16, 31, 31, 46, 46]


@pytest.mark.parametrize(
    ("tensor", "pipeline", "words"),
    [
        (3, 1, "tp 3 does not divide the 8 KV heads"),
        (12, 1, "nor they it"),
        (1, 33, "pp 33 is more than the 32 layers"),
    ],
)
def test_splits_that_do_not_fit(tensor: int, pipeline: int, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        divide(LLAMA, Split(tensor, pipeline))


@pytest.mark.parametrize(("tensor", "pipeline"), [(0, 1), (1, -1), (MAX_RANKS, 2)])
def test_splits_that_cannot_be(tensor: int, pipeline: int) -> None:
    with pytest.raises(ConfigurationError, match=f"tp {tensor} × pp {pipeline}"):
        Split(tensor, pipeline)
